"""``sglang doctor`` as a user meets it."""

import json
import sys

import pytest
from click.testing import CliRunner, Result

from sglang_core import Check, CheckResult, SglangError, hookimpl
from sglang_core.cli.app import create_cli
from sglang_core.plugins import PluginManager
from sglang_plugins_builtin.doctor.command import doctor


class CheckingPlugin:
    """A plugin with the given checks."""

    def __init__(self, **checks: object) -> None:
        self.checks = [Check(name=name.replace("_", "-"), run=run) for name, run in checks.items()]

    @hookimpl
    def sglang_register_checks(self) -> list[Check]:
        return self.checks

    @hookimpl
    def sglang_register_commands(self) -> list[object]:
        return [doctor]


class FurtherChecks:
    @hookimpl
    def sglang_register_checks(self) -> list[Check]:
        return [Check(name="further", run=fine)]


def fine() -> CheckResult:
    return CheckResult(status="ok", message="all is well")


def doubtful() -> CheckResult:
    return CheckResult(status="warning", message="the disk is nearly full", remedy="sglang cache prune")


def bad() -> CheckResult:
    return CheckResult(status="problem", message="no driver", remedy="install the driver")


def run_doctor(*words: str, manager: PluginManager | None = None, **checks: object) -> Result:
    if manager is None:
        manager = PluginManager()
        manager.register(CheckingPlugin(**checks), "mine")
    return CliRunner().invoke(create_cli(manager), ["doctor", *words], obj=manager, prog_name="sglang")


def test_report_groups_checks_by_plugin_with_marks_and_remedies() -> None:
    manager = PluginManager()
    manager.register(CheckingPlugin(good=fine, disk_space=doubtful), "mine")
    manager.register(FurtherChecks(), "other")

    result = run_doctor(manager=manager)

    assert result.output.splitlines() == [
        "mine (registered by hand)",
        "  ok       good        all is well",
        "  warning  disk-space  the disk is nearly full",
        "                       Try: sglang cache prune",
        "",
        "other (registered by hand)",
        "  ok       further     all is well",
        "",
        "2 ok, 1 warning, 0 problems",
    ]
    assert result.exit_code == 0


def test_problem_is_exit_code_1() -> None:
    result = run_doctor(driver=bad, good=fine)

    assert "  problem  driver  no driver\n" in result.output
    assert "Try: install the driver" in result.output
    assert result.exit_code == 1


def test_json_is_one_object() -> None:
    result = run_doctor("--json", driver=bad, good=fine)

    assert json.loads(result.stdout) == {
        "ok": False,
        "counts": {"ok": 1, "warning": 0, "problem": 1},
        "checks": [
            {
                "plugin": "mine (registered by hand)",
                "check": "driver",
                "status": "problem",
                "message": "no driver",
                "remedy": "install the driver",
            },
            {
                "plugin": "mine (registered by hand)",
                "check": "good",
                "status": "ok",
                "message": "all is well",
                "remedy": "",
            },
        ],
    }
    assert result.exit_code == 1


def raise_error() -> CheckResult:
    raise RuntimeError("device 3 is on fire\nsecond line")


def raise_with_remedy() -> CheckResult:
    raise SglangError("the cache is locked", "remove cache.lock")


def leave() -> CheckResult:
    sys.exit("this library exits")


@pytest.mark.parametrize(
    ("check", "message", "remedy"),
    [
        (raise_error, "RuntimeError: device 3 is on fire", "report it to the authors of mine (registered by hand)"),
        (raise_with_remedy, "the cache is locked", "remove cache.lock"),
        (leave, "SystemExit: this library exits", "report it to the authors"),
        (lambda: None, "TypeError: the check returned None instead of a CheckResult", "report it to the authors"),
    ],
    ids=["error", "error with remedy", "exit", "no result"],
)
def test_check_that_breaks_is_a_problem_and_the_others_run(check: object, message: str, remedy: str) -> None:
    result = run_doctor("--json", broken=check, good=fine)

    broken, good = json.loads(result.stdout)["checks"]
    assert (broken["status"], broken["message"]) == ("problem", message)
    assert remedy in broken["remedy"]
    assert good["status"] == "ok"
    assert "Traceback" not in result.output


def test_quarantined_plugin_is_a_problem_with_its_remedy() -> None:
    from importlib.metadata import EntryPoint

    manager = PluginManager()
    manager.register(CheckingPlugin(good=fine), "mine")
    manager.load_entry_point(EntryPoint(name="broken", value="no_such_module_anywhere", group="sglang.plugins"))

    result = run_doctor(manager=manager)

    assert "broken (unknown)" in result.output
    assert "No module named 'no_such_module_anywhere'" in result.output.replace("\n" + " " * 17, " ")
    assert "--disable-plugin" in result.output
    assert result.exit_code == 1


def test_what_a_check_prints_stays_out_of_the_answer() -> None:
    def chatty() -> CheckResult:
        print("loading...")
        return fine()

    result = run_doctor("--json", chatty=chatty)

    assert json.loads(result.stdout)["ok"] is True
    assert "loading..." in result.stderr


def test_secrets_of_the_environment_are_blotted_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t-value")
    monkeypatch.setenv("MY_API_KEY", "1")

    def leak() -> CheckResult:
        raise RuntimeError("401 for https://user:hf_abcdefgh@hub with s3cr3t-value in 1 s")

    for words in ([], ["--json"]):
        output = run_doctor(*words, leak=leak).output
        assert "hf_abcdefgh" not in output
        assert "s3cr3t-value" not in output
        assert "<HF_TOKEN>" in output
        assert "in 1 s" in output.replace("\n" + " " * 17, " ")


def test_long_messages_are_wrapped_to_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")

    result = run_doctor(long=lambda: CheckResult(status="ok", message="word " * 40))

    assert max(len(line) for line in result.output.splitlines()) <= 60
    assert result.output.count("word") == 40


def test_no_checks_is_no_problem() -> None:
    result = run_doctor()

    assert (result.output, result.exit_code) == ("0 ok, 0 warnings, 0 problems\n", 0)
