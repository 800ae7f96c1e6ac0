"""`lock.json`: what was loaded here before survives damage, crashes and other processes."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from emberd.hashing import FileHash
from emberd.spaces.compare import compare
from emberd.spaces.fingerprint import of_dtype
from emberd.spaces.lock import LockEntry, LockFile, space_of
from emberd.spaces.options import SpaceOptions
from tests.serving import clean_environ

ENTRY = LockEntry(
    source="hf:me/mine@v1",
    folder="/hub/mine",
    files={"model.safetensors": FileHash(7, 1_700_000_000_123_456_789, 42, "ab" * 32)},
    fingerprint="0123456789abcdef",
    options=SpaceOptions(max_tokens=512, prompts={"query": "q: "}, normalize=True),
    backend="openvino",
    peak_memory_bytes=100,
)
WRITER = """
import sys
from pathlib import Path
from emberd.spaces.compare import compare
from emberd.spaces.fingerprint import of_dtype
from emberd.spaces.lock import LockEntry, LockFile, space_of

lock = LockFile(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(sys.argv[3])):
    lock.put(f"{sys.argv[2]}-{number}", LockEntry(source="s", folder=sys.argv[2]))
"""


def start_writer(state: Path, name: str, count: int) -> "subprocess.Popen[str]":
    """Start a process that writes `count` models once it reads a line."""
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(state), name, str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=clean_environ(state),
        text=True,
    )


def test_an_entry_reads_back_equal(tmp_path: Path) -> None:
    LockFile(tmp_path).put("mine", ENTRY)

    assert LockFile(tmp_path).read() == {"mine": ENTRY}


def test_a_model_replaces_itself_and_leaves_the_others(tmp_path: Path) -> None:
    lock = LockFile(tmp_path)
    lock.put("mine", ENTRY)
    lock.put("other", replace(ENTRY, folder="/other"))

    lock.put("mine", replace(ENTRY, folder="/moved"))

    assert {name: entry.folder for name, entry in lock.read().items()} == {
        "mine": "/moved",
        "other": "/other",
    }


@pytest.mark.parametrize(("now", "kept"), [(50, 100), (150, 150), (0, 100)])
def test_the_highest_peak_is_kept_for_the_same_space(tmp_path: Path, now: int, kept: int) -> None:
    lock = LockFile(tmp_path)
    lock.put("mine", ENTRY)

    lock.put("mine", replace(ENTRY, peak_memory_bytes=now))

    assert lock.read()["mine"].peak_memory_bytes == kept


@pytest.mark.parametrize(
    ("before", "now", "kept"), [(100, 200, 200), (300, 200, 250), (2**40, 200, 400), (300, 0, 300)]
)
def test_a_higher_peak_of_earlier_runs_fades(
    tmp_path: Path, before: int, now: int, kept: int
) -> None:
    lock = LockFile(tmp_path)
    lock.put("mine", replace(ENTRY, peak_memory_bytes=before))

    lock.note_peak("mine", now)

    assert lock.read()["mine"].peak_memory_bytes == kept


def test_another_space_has_a_peak_of_its_own(tmp_path: Path) -> None:
    lock = LockFile(tmp_path)
    lock.put("mine", ENTRY)

    lock.put("mine", replace(ENTRY, fingerprint="fedcba9876543210", peak_memory_bytes=50))

    assert lock.read()["mine"].peak_memory_bytes == 50


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\x00" * 100,
        b"{",
        b"[]",
        b"null",
        b'{"version": 1}',
        b'{"models": []}',
        b'{"models": {"mine": 3}}',
        b'{"models": {"mine": {}}}',
        b'{"models": {"mine": {"files": {"a": {"size": 1}}}}}',
        b'{"models": {"mine": {"files": {}, "source": "s", "folder": "f", "max_tokens": "1"}}}',
        b'{"models": {"mine": {"files": {}, "source": "s", "folder": "f", "options": [1]}}}',
        b'{"models": {"mine": {"files": {}, "source": "s", "folder": "f",'
        b' "options": {"prompts": {"query": 1}}}}}',
        b'{"models": {"mine": {"files": {}, "source": "s", "folder": "f", "changed_to": 1}}}',
    ],
)
def test_a_damaged_file_counts_as_empty_and_is_replaced(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "lock.json").write_bytes(damage)
    lock = LockFile(tmp_path)

    assert lock.read() == {}
    lock.put("mine", ENTRY)
    assert lock.read() == {"mine": ENTRY}


def test_without_a_file_nothing_is_known(tmp_path: Path) -> None:
    assert LockFile(tmp_path / "nowhere").read() == {}


def test_the_state_folder_is_made_when_it_is_needed(tmp_path: Path) -> None:
    LockFile(tmp_path / "a" / "b").put("mine", ENTRY)

    assert (tmp_path / "a" / "b" / "lock.json").is_file()


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    LockFile(tmp_path).put("mine", ENTRY)

    assert (tmp_path / "lock.json").stat().st_mode & 0o777 == 0o600


def test_a_write_leaves_no_rubbish(tmp_path: Path) -> None:
    LockFile(tmp_path).put("mine", ENTRY)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock.flock", "lock.json"]


def test_the_file_is_json_with_a_version(tmp_path: Path) -> None:
    LockFile(tmp_path).put("mine", ENTRY)

    content = json.loads((tmp_path / "lock.json").read_bytes())
    assert content["version"] == 1
    assert content["models"]["mine"]["fingerprint"] == ENTRY.fingerprint


def test_two_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    writers = [start_writer(tmp_path, name, 25) for name in ("a", "b")]
    for writer in writers:
        assert writer.stdout
        assert writer.stdout.readline() == "ready\n"

    outputs = []
    for writer in writers:
        assert writer.stdin
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        outputs.append(writer.communicate(timeout=30))

    assert [writer.returncode for writer in writers] == [0, 0], outputs
    assert LockFile(tmp_path).read().keys() == {f"{n}-{i}" for n in "ab" for i in range(25)}


def test_a_reader_sees_what_another_process_wrote(tmp_path: Path) -> None:
    lock = LockFile(tmp_path)
    lock.put("mine", ENTRY)
    assert lock.read().keys() == {"mine"}

    start_writer(tmp_path, "other", 1).communicate("go\n", timeout=30)

    assert lock.read().keys() == {"mine", "other-0"}


@pytest.mark.parametrize(
    ("files", "here"), [(["a", "b"], True), (["a", "gone"], False), ([], False)]
)
def test_an_entry_knows_whether_its_files_are_still_here(
    tmp_path: Path, files: list[str], here: bool
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).touch()
    hashes = dict.fromkeys(files, FileHash(0, 0, 0, ""))

    assert replace(ENTRY, folder=str(tmp_path), files=hashes).files_remain == here


def test_what_a_newer_version_added_is_passed_over(tmp_path: Path) -> None:
    LockFile(tmp_path).put("mine", replace(ENTRY, changed_to=ENTRY, cosine=0.5))
    file = tmp_path / "lock.json"
    content = json.loads(file.read_bytes())
    mine = content["models"]["mine"]
    for part in (mine, mine["options"], *mine["files"].values(), mine["changed_to"]):
        part["later"] = {"anything": 1}
    file.write_text(json.dumps(content))

    assert LockFile(tmp_path).read() == {"mine": replace(ENTRY, changed_to=ENTRY, cosine=0.5)}


def test_what_an_older_version_wrote_keeps_its_limit(tmp_path: Path) -> None:
    LockFile(tmp_path).put("mine", ENTRY)
    file = tmp_path / "lock.json"
    content = json.loads(file.read_bytes())
    del content["models"]["mine"]["options"]
    content["models"]["mine"]["max_tokens"] = 512
    file.write_text(json.dumps(content))

    assert LockFile(tmp_path).read() == {
        "mine": replace(ENTRY, options=SpaceOptions(max_tokens=512))
    }


STEPS = {"384": 0.001953125, "128": 0.00390625}


def test_the_steps_that_came_first_count(tmp_path: Path) -> None:
    lock = LockFile(tmp_path)
    lock.put("mine", ENTRY)

    first = lock.keep_steps("mine", "0123456789abcdef", {"384": STEPS["384"]})
    later = lock.keep_steps("mine", "0123456789abcdef", {"384": 0.5, "128": STEPS["128"]})

    assert first == {"384": STEPS["384"]}
    assert later == LockFile(tmp_path).read()["mine"].steps == STEPS


def test_steps_of_another_space_are_not_kept(tmp_path: Path) -> None:
    lock = LockFile(tmp_path)
    lock.put("mine", ENTRY)

    assert lock.keep_steps("mine", "another", STEPS) == STEPS
    assert lock.keep_steps("nobody", "another", STEPS) == STEPS
    assert LockFile(tmp_path).read() == {"mine": ENTRY}


def test_steps_survive_a_load_that_began_before_they_were_known(tmp_path: Path) -> None:
    lock = LockFile(tmp_path)
    lock.put("mine", ENTRY)
    lock.keep_steps("mine", "0123456789abcdef", STEPS)

    lock.put("mine", replace(ENTRY, compute="bf16"))
    assert lock.read()["mine"].steps == STEPS

    lock.put("mine", replace(ENTRY, fingerprint="another"))
    assert not lock.read()["mine"].steps


def test_what_a_model_changed_to_has_steps_of_its_own(tmp_path: Path) -> None:
    lock = LockFile(tmp_path)
    changed = replace(ENTRY, fingerprint="another")
    lock.put("mine", replace(ENTRY, steps=STEPS, changed_to=changed, cosine=0.5))

    lock.keep_steps("mine", "another", {"384": 0.5})

    assert lock.read()["mine"].steps == STEPS
    assert lock.read()["mine"].now.steps == {"384": 0.5}
    lock.accept("mine")
    assert lock.read()["mine"].steps == {"384": 0.5}


@pytest.mark.parametrize("steps", [{"384": 0.0}, {"384": 1}, {"384": "x"}, {"384": float("inf")}])
def test_steps_that_are_none_are_damage(tmp_path: Path, steps: dict[str, object]) -> None:
    lock = LockFile(tmp_path)
    lock.put("mine", replace(ENTRY, steps=steps))  # type: ignore[arg-type]

    assert LockFile(tmp_path).read() == {}


SPACED = replace(ENTRY, fingerprints={"384": "0123456789abcdef", "128": "cut"}, steps=STEPS)


def test_the_space_of_a_dtype_is_made_of_the_float_one() -> None:
    plain, bits = space_of("mine", SPACED), space_of("mine", SPACED, "binary")

    assert [*bits.fingerprints] == [of_dtype(each, "binary", 0) for each in plain.fingerprints]
    assert (bits.dtype, bits.step, bits.sizes) == ("binary", None, plain.sizes)
    assert not compare(plain, bits).is_same


def test_the_space_of_int8_has_the_step_of_its_size() -> None:
    small = space_of("mine", SPACED, "int8", 128)

    assert small.step == STEPS["128"]
    assert of_dtype("cut", "int8", STEPS["128"]) in small.fingerprints
    assert of_dtype("cut", "int8", STEPS["128"]) in space_of("mine", SPACED, "int8").fingerprints


def test_without_steps_nothing_is_known_about_int8() -> None:
    unknown = space_of("mine", replace(SPACED, steps={}), "int8", 384)

    assert compare(space_of("mine", SPACED, "int8", 384), unknown).verdict == "unknown"
