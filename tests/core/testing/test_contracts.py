"""The contract suites accept what is right and name what is wrong."""

import pytest
from attrs import evolve, frozen

from sglang_core import (
    Availability,
    GeneratedMedia,
    ModelReference,
    StepControl,
    describe_model,
    read_json,
)
from sglang_core.testing import (
    MemoryResolver,
    MemorySource,
    NoOpBackend,
    NoOpPipeline,
    bare_manager,
    check_execution_backend,
    check_media_encoder,
    check_model_resolver,
    check_pipeline_transform,
    make_settings,
    tiny_pipeline_files,
)


@pytest.fixture
def model(tiny_model):
    return describe_model(MemorySource("tiny", tiny_pipeline_files(), tiny_model))


@pytest.mark.parametrize("kind", ["image", "video"])
def test_no_op_backend_keeps_the_contract(kind, model, tiny_model):
    plan = check_execution_backend(NoOpBackend(kind=kind), model, tiny_model)

    assert plan.kind == kind


class Deaf(NoOpBackend):
    """Never looks at the control."""

    def load(self, plan, folder, control):
        class Pipeline(NoOpPipeline):
            def run(self, request, control):
                return super().run(request, StepControl())

        return Pipeline(self, plan)


class Forgetful(NoOpBackend):
    """Makes one picture whatever the seed."""

    def load(self, plan, folder, control):
        class Pipeline(NoOpPipeline):
            def run(self, request, control):
                return super().run(evolve(request, seed=0), control)

        super().load(plan, folder, control)
        return Pipeline(self, plan)


class Small(NoOpBackend):
    """Makes another size than planned."""

    def load(self, plan, folder, control):
        class Pipeline(NoOpPipeline):
            def run(self, request, control):
                media = super().run(request, control)
                return GeneratedMedia(kind="image", frames=media.frames[:, :8])

        super().load(plan, folder, control)
        return Pipeline(self, plan)


BAD_BACKENDS = {
    "not available": (NoOpBackend(availability=Availability.no("no driver", "get one")), r"no driver \(get one\)"),
    "no reason": (NoOpBackend(availability=Availability(False)), "does not say why and what would help"),
    "upper case": (NoOpBackend(name="No Op"), "is no lower-case name"),
    "no stage load": (Deaf(), "loading reports no stage 'load'"),
    "same picture": (Forgetful(), "another seed gives the same frames"),
    "another size": (Small(), r"the frames have the size \(16, 8\), not \(16, 16\)"),
    "honours a text": (NoOpBackend(honours="precision"), "honours is a collection of names"),
}


@pytest.mark.parametrize(("backend", "message"), BAD_BACKENDS.values(), ids=BAD_BACKENDS)
def test_broken_backend_is_found_out(backend, message, model, tiny_model):
    with pytest.raises(AssertionError, match=message):
        check_execution_backend(backend, model, tiny_model)


@frozen(kw_only=True)
class Interleaving(NoOpBackend):
    """Says that runs may take place within each other, and keeps the seed of the last one to begin, or does not."""

    is_right: bool = True

    def load(self, plan, folder, control):
        super().load(plan, folder, control)
        return InterleavingPipeline(self, plan)


class InterleavingPipeline(NoOpPipeline):
    can_interleave = True

    def run(self, request, control):
        self.request = request
        media = super().run(request, control)
        return media if self._backend.is_right else self._draw(self.request)


def test_runs_within_each_other_are_compared_with_runs_alone(model, tiny_model):
    check_execution_backend(Interleaving(), model, tiny_model)
    with pytest.raises(AssertionError, match="says can_interleave, but a run in the middle of another changes"):
        check_execution_backend(Interleaving(is_right=False), model, tiny_model)


def test_encoders_of_this_package_keep_the_contract(manager, tmp_path):
    for encoder in manager.media_encoders:
        (tmp_path / encoder.name).mkdir()
        if encoder.probe().is_available:
            check_media_encoder(encoder, tmp_path / encoder.name)


class Leaky:
    """Writes something, and forgets the receipt."""

    name = "leaky"
    extensions = ("leak",)
    kinds = ("image", "video")
    order = 1

    def probe(self):
        return Availability.yes()

    def encode(self, media, path, options, receipt):
        path.write_bytes(b"x")

    def read_receipt(self, path):
        return None


def test_encoder_that_loses_the_receipt_is_found_out(tmp_path):
    with pytest.raises(AssertionError, match="leaky: the receipt reads back as None"):
        check_media_encoder(Leaky(), tmp_path)


def test_memory_resolver_keeps_the_contract(tmp_path):
    resolver = MemoryResolver({"a": tiny_pipeline_files()}, tmp_path)

    check_model_resolver(resolver, ModelReference(path="memory/a"), ModelReference(path="other/a"))


def test_directory_resolver_keeps_the_contract(manager, tiny_model):
    resolver = manager.model_resolvers.get("directory")

    check_model_resolver(resolver, ModelReference(path=str(tiny_model)), ModelReference(path="org/name"))


def test_resolver_that_takes_everything_is_found_out(tmp_path):
    class Greedy(MemoryResolver):
        def resolve(self, reference):
            return MemorySource(reference.path, tiny_pipeline_files(), tmp_path)

    with pytest.raises(AssertionError, match="it answers for 'other', which is foreign"):
        check_model_resolver(Greedy({}, tmp_path), ModelReference(path="memory/a"), ModelReference(path="other"))


class Faster:
    name = "faster"
    order = 1

    def __init__(self, reason="--faster", loses=()):
        self.reason = reason
        self.loses = loses

    def probe(self):
        return Availability.yes()

    def wanted(self, plan):
        return self.reason

    def apply(self, pipeline, plan):
        for name in self.loses:
            del pipeline.components[name]


def test_transform_contract(model, tiny_model):
    plan = check_execution_backend(NoOpBackend(), model, tiny_model)
    pipeline = NoOpPipeline(NoOpBackend(), plan)

    check_pipeline_transform(Faster(), plan, pipeline)
    with pytest.raises(AssertionError, match="faster: it gives no reason for a plan that wants it"):
        check_pipeline_transform(Faster(reason=None), plan, pipeline)
    with pytest.raises(AssertionError, match="faster: it took components away: vae"):
        check_pipeline_transform(Faster(loses=["vae"]), plan, pipeline)


def test_tiny_pipeline_is_read_like_a_real_one(model, tiny_model):
    assert model.components["transformer"].dtype == "bf16"
    assert model.components["text_encoder"].num_parameters == 32
    assert sum(path.stat().st_size for path in tiny_model.rglob("*") if path.is_file()) < 3000
    source = MemorySource("tiny", tiny_pipeline_files(width=8), tiny_model)
    assert read_json(source, "sglang.json") == source.sampling_defaults() == {"width": 8}


def test_settings_of_a_bare_manager_do_not_read_the_environment(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")

    assert not make_settings(bare_manager(host_options=True)).is_given("hf_token")
