"""What is written for launchd and systemd, checked against their own rules."""

import plistlib
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from emberd.config.environment import for_a_service
from emberd.config.settings import MOST_GRACE_S
from emberd.errors import ServiceError
from emberd.pool.process import TERM_GRACE_S
from emberd.server.run import DRAIN_S, SHUTDOWN_GRACE_S
from emberd.service.launchd import MANY_BYTES, Launchd
from emberd.service.systemd import Systemd
from emberd.service.unit import STOP_S, Unit
from tests.service.managers import Machine

# launchd.plist(5): the keys that are used here and the type of each
PLIST_KEYS: dict[str, type] = {
    "Label": str,
    "ProgramArguments": list,
    "EnvironmentVariables": dict,
    "RunAtLoad": bool,
    "KeepAlive": dict,
    "ThrottleInterval": int,
    "ExitTimeOut": int,
    "ProcessType": str,
    "Umask": int,
    "WorkingDirectory": str,
    "StandardOutPath": str,
    "StandardErrorPath": str,
}
ANALYZE = shutil.which("systemd-analyze") or ""
STRANGE = "/opt/a b/c'd/e\"f/100%/$HOME/back\\slash/ü"


def unit_of(argv: tuple[str, ...] = ("/bin/true",), **environ: str) -> Unit:
    return Unit(argv=argv, environ=environ, stderr=Path("/tmp/x.log"))  # noqa: S108


def installed(machine: Machine, **environ: str) -> dict[str, Any]:
    """Return the property list that would be installed."""
    plist: dict[str, Any] = plistlib.loads(
        machine.said("service", "install", "--dry-run", **environ).encode()
    )
    return plist


def test_the_property_list_has_known_keys_of_the_right_types(mac: Machine) -> None:
    plist = installed(mac)

    assert {key: type(value) for key, value in plist.items()} == PLIST_KEYS
    assert plist["KeepAlive"] == {"SuccessfulExit": False}
    assert plist["ProcessType"] == "Interactive"
    assert plist["Label"] == mac.unit.stem


def test_the_property_list_names_whole_paths(mac: Machine) -> None:
    plist = installed(mac)

    places = [
        plist["ProgramArguments"][0],
        plist["StandardErrorPath"],
        plist["EnvironmentVariables"]["EMBERD_HOME"],
    ]
    assert all(Path(place).is_absolute() for place in places)
    assert "~" not in str(plist)


@pytest.mark.skipif(not ANALYZE, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("word", ["plain", STRANGE], ids=["plain", "strange"])
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path, word: str) -> None:
    file = tmp_path / "emberd.service"
    file.write_bytes(Systemd().render(unit_of(("/bin/true", word), EMBERD_HOME=word)))

    done = subprocess.run(
        [ANALYZE, "--user", "verify", file],
        capture_output=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)},
    )

    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


@pytest.mark.skipif(not ANALYZE, reason="systemd-analyze is not installed")
def test_systemd_would_find_what_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "emberd.service"
    file.write_bytes(Systemd().render(unit_of()).replace(b"KillMode=mixed", b"KillMode=mxied"))

    done = subprocess.run(
        [ANALYZE, "--user", "verify", file],
        capture_output=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)},
    )

    assert b"mxied" in done.stderr


def test_the_unit_says_how_it_is_run() -> None:
    lines = Systemd().render(unit_of()).decode().splitlines()

    assert {
        "Type=notify",
        "Restart=on-failure",
        "RestartSec=10",
        "RestartPreventExitStatus=78",
        "StartLimitIntervalSec=600",
        "StartLimitBurst=20",
        "TimeoutStopSec=45",
        "KillMode=mixed",
        "OOMPolicy=continue",
        "UMask=0077",
        "WantedBy=default.target",
    } <= set(lines)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "kept"), [(MANY_BYTES + 1, 0), (MANY_BYTES, MANY_BYTES)])
def test_a_large_stderr_file_of_macos_begins_anew(mac: Machine, size: int, kept: int) -> None:
    """The service itself writes nothing there."""
    file = mac.emberd_home / "state" / "service.stderr.log"
    file.parent.mkdir()
    file.write_bytes(b"x" * size)

    mac.said("service", "install")

    content = file.read_bytes()
    assert content.count(b"x" * 1024) == kept // 1024


def test_a_line_break_does_not_reach_a_unit_file() -> None:
    with pytest.raises(ServiceError, match="cannot contain"):
        Systemd().render(unit_of(EMBERD_HOME="/a\nExecStartPre=/bin/evil"))


def test_strange_paths_survive_the_property_list() -> None:
    plist = plistlib.loads(Launchd().render(unit_of(("/bin/true", STRANGE), EMBERD_HOME=STRANGE)))

    assert plist["ProgramArguments"] == ["/bin/true", STRANGE]
    assert plist["EnvironmentVariables"] == {"EMBERD_HOME": STRANGE}


def test_a_manager_waits_longer_than_a_server_takes_to_end() -> None:
    assert MOST_GRACE_S + max(DRAIN_S, SHUTDOWN_GRACE_S) + 2 * TERM_GRACE_S < STOP_S


def test_no_secret_is_written(mac: Machine) -> None:
    secrets = {
        "EMBERD_TOKEN": "s3cret-1",
        "HF_TOKEN": "s3cret-2",
        "HF_ENDPOINT": "https://me:s3cret-3@hub.example",
        "HTTPS_PROXY": "http://me:s3cret-4@proxy.example",
    }

    done = mac.run("service", "install", "--dry-run", **secrets)

    assert "s3cret" not in done.stdout + done.stderr
    assert all(f"${name} holds a secret" in done.stderr for name in secrets)


def test_what_a_shell_had_set_the_service_is_told(tmp_path: Path) -> None:
    kept, left_out = for_a_service(
        {
            "EMBERD_LIMITS_MAX_LOADED": "2",
            "EMBERD_SERVER_TOKEN_FILE": "token",
            "HF_HOME": "~/hub",
            "HF_HUB_OFFLINE": "1",
            "EMBERD_DEFAULT": "",
            "PATH": "/bin",
            "AWS_SECRET_ACCESS_KEY": "not ours",
        }
    )

    assert left_out == []
    assert kept == {
        "EMBERD_LIMITS_MAX_LOADED": "2",
        "EMBERD_SERVER_TOKEN_FILE": str(Path("token").absolute()),
        "HF_HOME": str(Path.home() / "hub"),
        "HF_HUB_OFFLINE": "1",
    }


def test_a_log_file_of_the_config_stays_the_configs(mac: Machine, tmp_path: Path) -> None:
    mac.config.write_text(f"log: {{file: {tmp_path}/mine.log}}\n")
    of_file = installed(mac)["EnvironmentVariables"]
    of_environ = installed(mac, EMBERD_LOG_FILE="/its.log")["EnvironmentVariables"]
    mac.config.write_text("default: minilm\n")
    of_nobody = installed(mac)["EnvironmentVariables"]

    assert "EMBERD_LOG_FILE" not in of_file
    assert of_environ["EMBERD_LOG_FILE"] == "/its.log"
    assert of_nobody["EMBERD_LOG_FILE"] == str(mac.emberd_home / "state" / "emberd.log")


def test_a_config_file_named_by_a_flag_is_the_services_too(mac: Machine, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("default: minilm\n")

    shown = mac.said("--config", str(file), "service", "install", "--dry-run")

    assert plistlib.loads(shown.encode())["EnvironmentVariables"]["EMBERD_CONFIG"] == str(file)
