import pytest

from sglang_core import ModelLoadError
from sglang_plugins_builtin.native.wan.text_encoder_config import UMT5Config


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"feed_forward_proj": "relu"}, "the native backend has no feed_forward_proj='relu' as config.json asks for"),
        ({"d_model": []}, "config.json does not describe a UMT5 encoder: "),
    ],
)
def test_a_configuration_that_can_not_be_used_is_named(config, problem):
    with pytest.raises(ModelLoadError) as caught:
        UMT5Config.read(config, "config.json")

    assert caught.value.problem.startswith(problem)
