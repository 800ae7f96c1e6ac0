"""A service manager to run tests against: `launchctl`, `systemctl`, ..., by the name it is run as.

It reads real units, keeps state in files, and really starts and watches the process. It knows the
commands that emberd uses and refuses all others; what it says is laid out as the real ones' output.
`systemctl` waits for READY=1 on a real notify socket. Run as `watch`, it is the process's parent.
Tests run it hundreds of times, so what only some commands need is imported there.
"""

import fcntl
import json
import os
import shlex
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import subprocess

STATE = Path(sys.argv[0]).resolve().parent / "state"
PASSED_ON = ("HOME", "PATH", "LANG")  # what a manager's own environment has
START_S, POLL_S = 15.0, 0.02


def main() -> None:
    STATE.mkdir(exist_ok=True)
    name, words = Path(sys.argv[0]).name, sys.argv[1:]
    with (STATE / "calls").open("a") as calls:
        calls.write(f"{name} {shlex.join(words)}\n")
    commands = (launchctl, systemctl, journalctl, loginctl, watch)
    {command.__name__: command for command in commands}[name](words)


# The process


def note(name: str) -> dict[str, Any]:
    """Return what is known of a service; {} when it is not loaded."""
    try:
        noted: dict[str, Any] = json.loads((STATE / name).read_text())
    except FileNotFoundError:
        return {}
    return noted


def put(name: str, **changes: object) -> None:
    with (STATE / "lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        new = STATE / f"{name}.{os.getpid()}"
        new.write_text(json.dumps(note(name) | changes))
        new.rename(STATE / name)


def launch(name: str, what: dict[str, Any]) -> None:
    """Start a watcher, and return once it has started the process, which is then known."""
    import subprocess

    put(name, pid=None, exit=None, ready=False, gone=False, watcher=None)
    watcher = Path(sys.argv[0]).with_name("watch")
    with (STATE / "watch.log").open("ab") as log:
        process = subprocess.Popen(
            [watcher, name, json.dumps(what)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    put(name, watcher=process.pid)
    until = time.monotonic() + 30
    while not begun(note(name)) and process.poll() is None and time.monotonic() < until:
        time.sleep(POLL_S)


def begun(noted: dict[str, Any]) -> bool:
    """Whether a service's process has been started, which may have ended since."""
    return bool(noted["pid"] or noted["gone"] or noted["exit"] is not None)


def watch(words: list[str]) -> None:
    """Start the process, wait for its word and its end; start it again when it failed."""
    import signal
    import socket
    import subprocess

    if words[0] == "--end":
        end(words[1])
        (STATE / words[1]).unlink(missing_ok=True)
        return
    name, what = words[0], json.loads(words[1])
    environ = {key: os.environ[key] for key in PASSED_ON if key in os.environ} | what["environ"]
    stop: list[int] = []
    running: list[subprocess.Popen[bytes]] = []
    signal.signal(signal.SIGTERM, partial(on_term, stop, running))
    line = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    line.settimeout(POLL_S)
    if what["notify"]:
        import tempfile

        address = str(Path(tempfile.mkdtemp()) / "notify")  # a short path: sockets take no other
        line.bind(address)
        environ["NOTIFY_SOCKET"] = address
    while True:
        with Path(what["stderr"]).open("ab") as stderr:
            process = subprocess.Popen(
                what["argv"],
                env=environ,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                start_new_session=True,
            )
        running.append(process)
        if stop:  # the signal came before there was a process to pass it on to
            process.terminate()
        put(name, pid=process.pid)
        while process.poll() is None:
            if what["notify"]:
                with suppress(TimeoutError):
                    if "READY=1" in line.recv(4096).decode().splitlines():
                        put(name, ready=True)
            else:
                time.sleep(POLL_S)
        code = process.returncode
        put(name, pid=None, exit=code, ready=False)
        if stop or code == 0 or code in what["final"] or not what["again"]:
            put(name, gone=True)
            return
        until = time.monotonic() + what["again_s"]
        while time.monotonic() < until:
            if stop:
                return
            time.sleep(POLL_S)


def on_term(stop: list[int], running: "list[subprocess.Popen[bytes]]", *_: object) -> None:
    stop.append(1)
    if running:
        running[-1].terminate()


def end(name: str) -> None:
    """End a service and its watcher."""
    import signal

    noted = note(name)
    if noted.get("watcher"):
        with suppress(ProcessLookupError):
            os.kill(noted["watcher"], signal.SIGTERM)
        until = time.monotonic() + 30
        while alive(noted["watcher"]) and time.monotonic() < until:
            time.sleep(POLL_S)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def fail(code: int, said: str) -> NoReturn:
    sys.stderr.write(said + "\n")
    sys.exit(code)


# launchd


def launchctl(words: list[str]) -> None:
    command, *rest = words
    domain = f"gui/{os.getuid()}"
    if command == "bootstrap":
        assert rest[0] == domain
        import plistlib

        job = plistlib.loads(Path(rest[1]).read_bytes())
        name = job["Label"]
        if note(name):
            fail(5, "Bootstrap failed: 5: Input/output error")
        if name in disabled():
            fail(119, "Bootstrap failed: 119: Service is disabled")
        what = {
            "argv": job["ProgramArguments"],
            "environ": job.get("EnvironmentVariables", {}),
            "stderr": job["StandardErrorPath"],
            "notify": False,
            "again": job.get("KeepAlive") is True or job["KeepAlive"] == {"SuccessfulExit": False},
            "final": [],
            "again_s": job.get("ThrottleInterval", 10),
        }
        launch(name, what)
        return
    if command == "kickstart":
        assert rest[0] == "-k"
        name = rest[1].removeprefix(f"{domain}/")
        if not note(name):
            fail(113, "Could not find service")
        end(name)
        (STATE / name).unlink()
        file = Path(os.environ["HOME"], "Library/LaunchAgents", f"{name}.plist")
        launchctl(["bootstrap", domain, str(file)])
        return
    name = rest[0].removeprefix(f"{domain}/")
    assert name != rest[0]
    if command in ("enable", "disable"):
        names = disabled() - {name} if command == "enable" else disabled() | {name}
        (STATE / "disabled.json").write_text(json.dumps(sorted(names)))
        return
    noted = note(name)
    if not noted:
        fail(113, f'Could not find service "{name}" in domain for user gui: {os.getuid()}')
    if command == "bootout":
        import subprocess

        # As the real one: it returns at once, and the service is gone later.
        watcher = Path(sys.argv[0]).with_name("watch")
        quiet: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.Popen([watcher, "--end", name], start_new_session=True, **quiet)
    elif command == "print":
        code = noted["exit"]
        lines = [
            f"{domain}/{name} = {{",
            "\tactive count = 1",
            "\tendpoints = {",
            '\t\t"x" = {',
            "\t\t\tstate = active",
            "\t\t\tpid = 1",
            "\t\t}",
            "\t}",
            f"\tstate = {'running' if noted['pid'] else 'not running'}",
            *([f"\tpid = {noted['pid']}"] if noted["pid"] else []),
            f"\tlast exit code = {'(never exited)' if code is None else code}",
            "}",
        ]
        sys.stdout.write("\n".join(lines) + "\n")
    else:
        fail(64, f"Unrecognized subcommand: {command}")


def disabled() -> set[str]:
    try:
        return set(json.loads((STATE / "disabled.json").read_text()))
    except FileNotFoundError:
        return set()


# systemd


def systemctl(words: list[str]) -> None:
    assert words[0] == "--user"
    command, *rest = words[1:]
    if command == "daemon-reload":
        return
    if rest == ["--property=UnitPath", "--value"]:
        folders = (
            "/x/systemd/user.control",
            units("user.control"),
            units("user"),
            "/y/systemd/user",
        )
        sys.stdout.write(" ".join(map(str, folders)) + "\n")
        return
    name = rest[0]
    file = units("user") / name
    wants = file.parent / "default.target.wants" / name
    noted = note(name)
    if command == "show":
        systemctl_show(noted)
    elif command == "enable":
        wants.parent.mkdir(exist_ok=True)
        wants.unlink(missing_ok=True)
        wants.symlink_to(file)
    elif command == "disable":
        if not file.exists():
            fail(1, f"Failed to disable unit: Unit file {name} does not exist.")
        wants.unlink(missing_ok=True)
    elif command == "stop":
        end(name)
    elif command == "reset-failed":
        if noted:
            put(name, exit=None)
    elif command == "restart":
        end(name)
        launch(name, read_unit(file))
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            noted = note(name)
            if noted["ready"]:
                return
            if noted["exit"] is not None:
                fail(1, f"Job for {name} failed because the control process exited.")
            time.sleep(POLL_S)
        fail(1, f"Job for {name} failed because a timeout was exceeded.")
    else:
        fail(1, f"Unknown command verb {command}.")


def units(kind: str) -> Path:
    """Return a folder of units; the manager's own XDG_CONFIG_HOME is what a test left in a file."""
    with suppress(FileNotFoundError):
        return Path((STATE / "config_home").read_text(), "systemd", kind)
    return Path(os.environ["HOME"], ".config/systemd", kind)


def systemctl_show(noted: dict[str, Any]) -> None:
    if noted.get("pid"):
        state, sub = ("active", "running") if noted["ready"] else ("activating", "start")
    elif noted and not noted["gone"]:
        state, sub = "activating", "auto-restart"
    elif noted.get("exit"):
        state, sub = "failed", "failed"
    else:
        state, sub = "inactive", "dead"
    code = noted.get("exit")
    sys.stdout.write(
        f"MainPID={noted.get('pid') or 0}\nExecMainStatus={code or 0}\n"
        f"ExecMainExitTimestampMonotonic={0 if code is None else 1}\n"
        f"ActiveState={state}\nSubState={sub}\n"
    )


def read_unit(file: Path) -> dict[str, Any]:
    lines = [line.partition("=") for line in file.read_text().splitlines()]
    words = {
        key: [
            shlex.split(value.removeprefix(":").replace("%%", "%"))
            for found, _, value in lines
            if found == key
        ]
        for key in ("ExecStart", "Environment")
    }
    (argv,) = words["ExecStart"]
    service = {key: value for key, _, value in lines}
    assert service.get("Restart", "no") in ("on-failure", "no")
    return {
        "argv": argv,
        "environ": dict(pair.split("=", 1) for (pair,) in words["Environment"]),
        "stderr": str(STATE / f"{file.name}.journal"),
        "notify": service["Type"] == "notify",
        "again": service.get("Restart") == "on-failure",
        "final": [int(code) for code in service.get("RestartPreventExitStatus", "").split()],
        "again_s": float(service.get("RestartSec", "0.1")),
    }


def journalctl(words: list[str]) -> None:
    """Print what a service wrote; as the real one with --quiet, nothing without a journal."""
    assert words[:2] == ["--user", "--unit=emberd.service"]
    assert {"--no-pager", "--quiet"} <= set(words)
    (lines,) = (word.partition("=")[2] for word in words if word.startswith("--lines="))
    journal = STATE / "emberd.service.journal"
    if "--follow" in words:
        sys.stdout.flush()
        follow = ["/usr/bin/tail", "-n", lines, "--follow=name", "--retry", str(journal)]
        os.execv(follow[0], follow)  # noqa: S606 - our own words
    if journal.exists():
        last = journal.read_text().splitlines()[-int(lines) :] if int(lines) else []
        sys.stdout.write("".join(f"{line}\n" for line in last))


def loginctl(words: list[str]) -> None:
    assert words == ["show-user", "--property=Linger", "--value"]
    sys.stdout.write("no\n")


if __name__ == "__main__":
    main()
