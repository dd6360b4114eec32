"""A file is there whole or not at all, whatever happens while it is written."""

import errno
import io
import os
import stat
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from torch import nn

import momos
from momos._util import atomic
from momos._util.atomic import refuse_same, replacing
from momos.files import writer

# What happens to processes happens to children of another one, which has but one thread.
SCENES = '''
import os, random, resource, signal, sys, time
import torch, momos
from torch import nn

torch.set_num_threads(1)
scene, path = sys.argv[1:]
folder, random = os.path.dirname(path), random.Random(0)


def network(seed, width=24):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(width, width), nn.Linear(width, 5))
    config = momos.MosaicConfig(block_size=4, num_motifs=16, selection="sample")
    momos.project_(model, config)
    return model


def is_one_of(models):
    found = momos.load(path).tensors()
    return any(
        all(torch.equal(found[name], p) for name, p in model.named_parameters())
        for model in models
    )


def child(work):
    """The number of a new process that does `work` and tells how by its exit status."""
    sys.stdout.flush()
    number = os.fork()
    if not number:
        try:
            status = work()
        except BaseException as error:
            print(type(error).__name__, error, flush=True)
            status = 9
        os._exit(status or 0)
    return number


def status_of(number):
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def full():
    """Saves where a file may have no more than `most` bytes; 3 is: refused by the kernel."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    try:
        momos.save(large, path)
    except OSError:
        return 3


def saving():
    while True:
        for model in models:
            momos.save(model, path)


def racing():
    saved = refused = 0
    while saved < 25 or not (refused or saved > 500):
        try:
            momos.save(models[os.getpid() % 2], path)
            saved += 1
        except BlockingIOError:
            refused += 1


def unprivileged():
    if os.geteuid() == 0:
        os.setegid(65534)
        os.seteuid(65534)
    try:
        momos.save(models[0], path)
    except PermissionError:
        return 3


models = [network(1), network(2)]
if scene == "full":
    momos.save(models[0], path)
    large = network(3, width=300)
    size = momos.save(large, path + "2").num_bytes
    os.remove(path + "2")
    for most in [0, 1, 100, 1000, size // 2, size - 1]:
        assert status_of(child(full)) == 3
        assert os.listdir(folder) == [os.path.basename(path)], os.listdir(folder)
        assert is_one_of(models[:1])
    most = size
    assert status_of(child(full)) == 0
    assert is_one_of([large])
elif scene == "killed":
    momos.save(models[0], path)
    left = 0
    for _ in range(80):
        number = child(saving)
        time.sleep(random.uniform(0, 0.03))
        os.kill(number, signal.SIGKILL)
        assert status_of(number) == -signal.SIGKILL
        assert is_one_of(models)
        others = set(os.listdir(folder)) - {os.path.basename(path)}
        assert len(others) <= 1, others
        left += len(others)
    assert left, "none was killed while it wrote"
    momos.save(models[1], path)
    assert is_one_of(models[1:])
elif scene == "racing":
    numbers = [child(racing) for _ in range(4)]
    assert [status_of(number) for number in numbers] == [0] * 4
    assert is_one_of(models)
elif scene == "denied":
    momos.save(models[1], path)
    os.chmod(folder, 0o555)
    try:
        assert status_of(child(unprivileged)) == 3
    finally:
        os.chmod(folder, 0o755)
    assert is_one_of(models[1:])
assert os.listdir(folder) == [os.path.basename(path)], os.listdir(folder)
print("ended well")
'''


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "network.momos"


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Linear(12, 12)
    momos.project_(model, momos.MosaicConfig(block_size=4, num_motifs=16))
    return model


def assert_holds(path: Path, model: nn.Module) -> None:
    """That the file holds the model, and is alone."""
    found = momos.load(path).tensors()
    assert all(torch.equal(found[name], p) for name, p in model.named_parameters())
    assert os.listdir(path.parent) == [path.name]


# Errors


@pytest.mark.parametrize(
    "error", [RuntimeError, MemoryError, KeyboardInterrupt, SystemExit]
)
@pytest.mark.parametrize("where", ["write_manifest", "pack", "build_header"])
def test_an_error_while_writing_leaves_the_old_file(error, where, path, monkeypatch):
    def fail(*_: object) -> None:
        raise error("stop")

    old = network()
    momos.save(old, path)
    with monkeypatch.context() as patched:
        patched.setattr(writer, where, fail)
        with pytest.raises(error, match="stop"):
            momos.save(network(1), path)
    assert_holds(path, old)
    momos.save(network(1), path)
    assert_holds(path, network(1))


@pytest.mark.parametrize("where", ["write_manifest", "pack"])
def test_an_error_while_writing_leaves_no_file_where_there_was_none(
    where, path, monkeypatch
):
    monkeypatch.delattr(writer, where)
    with pytest.raises(NameError):
        momos.save(network(), path)
    assert os.listdir(path.parent) == []


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_is_full_at_the_end_leaves_the_old_file(call, path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    momos.save(network(), path)
    with monkeypatch.context() as patched:
        patched.setattr(atomic.os, call, fail)
        with pytest.raises(OSError, match="No space left"):
            momos.save(network(1), path)
    assert_holds(path, network())


def test_a_disk_that_is_full_leaves_the_old_file(path, monkeypatch):
    class Full(io.BufferedRandom):
        def write(self, data: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    def full(name: Path, mode: str, **options: Any) -> io.BufferedRandom:
        assert mode == "x+b"
        return Full(io.FileIO(str(name), "x+", **options))

    momos.save(network(), path)
    with monkeypatch.context() as patched:
        patched.setattr(atomic, "open", full, raising=False)
        with pytest.raises(OSError, match="No space left"):
            momos.save(network(1), path)
    assert_holds(path, network())


# Targets


def test_a_folder_is_not_replaced(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(IsADirectoryError, match=str(folder)):
        momos.save(network(), folder)
    assert os.listdir(folder) == []
    assert os.listdir(tmp_path) == ["folder"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        momos.save(network(), tmp_path / "nowhere" / "a.momos")
    assert os.listdir(tmp_path) == []


def test_a_pipe_is_not_replaced(path):
    os.mkfifo(path)
    with pytest.raises(OSError, match="only an ordinary file can be replaced"):
        momos.save(network(), path)
    assert path.is_fifo()
    assert os.listdir(path.parent) == [path.name]


def test_a_device_is_not_replaced():
    with pytest.raises(
        OSError, match="only an ordinary file can be replaced, got /dev/null"
    ):
        momos.save(network(), "/dev/null")


@pytest.mark.parametrize("exists", [True, False])
def test_the_target_of_a_link_is_replaced_and_the_link_stays(exists, tmp_path):
    folder, link = tmp_path / "folder", tmp_path / "link.momos"
    folder.mkdir()
    if exists:
        (folder / "real.momos").write_bytes(b"old")
    link.symlink_to("folder/real.momos")
    report = momos.save(network(), link)
    assert report.path == link
    assert os.readlink(link) == "folder/real.momos"
    assert_holds(folder / "real.momos", network())
    assert sorted(os.listdir(tmp_path)) == ["folder", "link.momos"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
def test_a_file_keeps_its_mode(mode, path):
    momos.save(network(), path)
    path.chmod(mode)
    momos.save(network(1), path)
    assert path.stat().st_mode & 0o777 == mode


def test_a_new_file_has_the_mode_of_any_new_file(path):
    momos.save(network(), path)
    (path.parent / "other").touch()
    assert path.stat().st_mode == (path.parent / "other").stat().st_mode


@pytest.mark.parametrize("length", [100, 249, 255])
def test_a_name_may_be_as_long_as_names_are(length, tmp_path):
    path = tmp_path / ("a" * length)
    momos.save(network(), path)
    assert_holds(path, network())


@pytest.mark.parametrize("as_given", [str, os.fspath, lambda path: path])
def test_a_path_may_be_relative_and_text(as_given, path, monkeypatch):
    monkeypatch.chdir(path.parent)
    momos.save(network(), as_given(Path(path.name)))
    assert_holds(path, network())


# What others left


def part_of(path: Path, token: str = "0123456789abcdef") -> Path:
    """Where a process that died may have left its part."""
    return path.with_name(f".{path.name}.{token}.part")


@pytest.mark.parametrize("length", [0, 5, 1 << 20])
def test_what_killed_processes_left_is_removed(length, path):
    for token in ("0" * 16, "f" * 16):
        part_of(path, token).write_bytes(b"x" * length)
    momos.save(network(), path)
    assert_holds(path, network())


@pytest.mark.parametrize("name", ["a" * 200, "a" * 130])
def test_what_killed_processes_left_of_a_long_name_is_removed(name, tmp_path):
    path = tmp_path / name
    with replacing(path) as file:
        left = Path(file.name)
    left.write_bytes(b"x")
    momos.save(network(), path)
    assert_holds(path, network())


@pytest.mark.parametrize(
    "name",
    [
        ".network.momos.part",
        ".network.momos.0123456789abcde.part",
        ".network.momos.0123456789abcdeg.part",
        ".network.momos.0123456789ABCDEF.part",
        ".other.momos.0123456789abcdef.part",
        ".networkxmomos.0123456789abcdef.part",
        "network.momos.0123456789abcdef.part",
    ],
)
def test_a_file_that_is_not_ours_is_left_alone(name, path):
    (path.parent / name).write_bytes(b"precious")
    momos.save(network(), path)
    assert (path.parent / name).read_bytes() == b"precious"
    assert sorted(os.listdir(path.parent)) == sorted([name, path.name])


@pytest.mark.parametrize(
    "name", [".network.momos.part", part_of(Path("network.momos")).name]
)
def test_a_pipe_is_not_waited_for_and_a_link_not_followed(name, path):
    os.mkfifo(path.parent / name)
    momos.save(network(), path)
    assert (path.parent / name).is_fifo()
    (path.parent / name).unlink()
    precious = path.parent.parent / f"precious {path.parent.name}"
    precious.write_bytes(b"precious")
    (path.parent / name).symlink_to(precious)
    momos.save(network(), path)
    assert (path.parent / name).is_symlink()
    assert precious.read_bytes() == b"precious"
    assert momos.load(path)


# File systems that cannot do everything


def refuse(monkeypatch: pytest.MonkeyPatch, call: str, error: int) -> list[object]:
    """Lets a call of the operating system fail; how it was called."""
    calls: list[object] = []

    def fail(*arguments: object) -> None:
        calls.append(arguments)
        raise OSError(error, os.strerror(error))

    module = atomic.fcntl if call == "flock" else atomic.os
    monkeypatch.setattr(module, call, fail)
    return calls


@pytest.mark.parametrize("error", ["ENOSYS", "EOPNOTSUPP", "ENOLCK", "EINVAL", "EPERM"])
def test_without_locks_a_file_is_saved_after_one_warning(error, path, monkeypatch):
    number = getattr(errno, error)
    assert refuse(monkeypatch, "flock", number) == []
    with pytest.warns(UserWarning, match="without a lock") as warned:
        momos.save(network(), path)
    (warning,) = warned
    assert warning.filename == __file__
    assert str(warning.message) == (
        f"{path} is written without a lock, which its file system refuses "
        f"({os.strerror(number)}): two processes must not write it at once"
    )
    assert_holds(path, network())


def test_a_warning_that_is_an_error_leaves_the_old_file(path, monkeypatch):
    momos.save(network(), path)
    refuse(monkeypatch, "flock", errno.ENOSYS)
    with (
        warnings.catch_warnings(action="error"),
        pytest.raises(UserWarning, match="a lock"),
    ):
        momos.save(network(1), path)
    assert_holds(path, network())


@pytest.mark.filterwarnings("ignore:.*written without a lock")
def test_without_locks_only_a_part_that_is_old_is_abandoned(path, monkeypatch):
    refuse(monkeypatch, "flock", errno.ENOSYS)
    part_of(path).write_bytes(b"x")
    momos.save(network(), path)
    assert part_of(path).exists()
    long_ago = time.time() - atomic.ABANDONED_AFTER - 60
    os.utime(part_of(path), (long_ago, long_ago))
    momos.save(network(), path)
    assert_holds(path, network())


@pytest.mark.filterwarnings("ignore:.*written without a lock")
def test_without_locks_the_last_of_two_files_stays(path, monkeypatch):
    refuse(monkeypatch, "flock", errno.ENOSYS)
    with replacing(path) as file:
        momos.save(network(), path)
        file.write(b"the last")
    assert path.read_bytes() == b"the last"
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_mode_that_cannot_be_kept_is_no_error(error, path, monkeypatch):
    momos.save(network(), path)
    path.chmod(0o606)  # which no umask leaves of it
    refuse(monkeypatch, "fchmod", error)
    before = os.umask(0o022)
    try:
        match = r"mode 604 instead of the 606 .* refuses \("
        with pytest.warns(UserWarning, match=match) as warned:
            momos.save(network(1), path)
        assert warned[0].filename == __file__
    finally:
        os.umask(before)
    assert_holds(path, network(1))
    momos.save(network(2), path)  # the mode is what the file system makes of it: no warning
    assert_holds(path, network(2))


@pytest.mark.parametrize("error", [errno.EINVAL, errno.EPERM, errno.ENOSYS, errno.EIO])
def test_a_folder_that_cannot_be_synced_is_no_error(error, path, monkeypatch):
    sync = os.fsync

    def fail(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(error, os.strerror(error))
        sync(descriptor)

    monkeypatch.setattr(atomic.os, "fsync", fail)
    momos.save(network(), path)
    assert_holds(path, network())


def test_a_folder_that_cannot_be_opened_or_listed_is_no_error(path, monkeypatch):
    open_file = os.open

    def open_no_folder(name: str, flags: int, *mode: int) -> int:
        if Path(name).is_dir():
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)
        return open_file(name, flags, *mode)

    with monkeypatch.context() as patched:
        patched.setattr(atomic.os, "open", open_no_folder)
        refuse(patched, "listdir", errno.EACCES)
        momos.save(network(), path)
    assert_holds(path, network())


@pytest.mark.parametrize("error", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_that_cannot_sync_is_no_error(error, path, monkeypatch):
    assert refuse(monkeypatch, "fsync", error) == []
    momos.save(network(), path)
    assert_holds(path, network())


# Others that write


def test_a_file_is_written_by_one_at_a_time(path):
    with replacing(path) as file:
        file.write(b"of another process")
        with pytest.raises(BlockingIOError, match=r"another is writing .*network\.momos"):
            momos.save(network(), path)
        assert not path.exists()
    assert path.read_bytes() == b"of another process"
    momos.save(network(), path)
    assert_holds(path, network())


def test_two_files_of_one_folder_can_be_written_at_once(path):
    with replacing(path) as file:
        momos.save(network(), path.with_name("other.momos"))
        file.write(b"whole")
    assert path.read_bytes() == b"whole"
    assert sorted(os.listdir(path.parent)) == ["network.momos", "other.momos"]


def test_threads_that_save_to_one_path_leave_one_of_their_files(path):
    errors = []

    def work(seed: int) -> None:
        for _ in range(20):
            try:
                momos.save(models[seed], path)
            except BlockingIOError:
                continue
            except BaseException as error:
                errors.append(error)

    models = [network(seed) for seed in range(4)]
    momos.save(models[0], path)
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    found = momos.load(path).tensors()["weight"]
    assert any(torch.equal(found, model.weight) for model in models)
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize(
    "scene",
    [
        pytest.param("full", id="disk full"),
        pytest.param("killed", id="killed at any moment"),
        pytest.param("racing", id="four at once"),
        pytest.param("denied", id="folder that is read-only"),
    ],
)
def test_processes_leave_a_whole_file(scene):
    with TemporaryDirectory() as outer:
        os.chmod(outer, 0o755)  # so that whoever is denied is denied by `folder`
        folder = Path(outer) / "folder"
        folder.mkdir(mode=0o755)
        command = [sys.executable, "-c", SCENES, scene, str(folder / "network.momos")]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        found = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (found.returncode, found.stdout) == (0, "ended well\n"), found.stderr


# Reading what is written over


def made(folder: Path) -> tuple[Path, Path]:
    (folder / "read").write_bytes(b"read")
    return folder / "read", folder / "other"


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
def test_a_file_that_is_read_is_not_written_over_by_another_name(link, tmp_path):
    read, other = made(tmp_path)
    refuse_same([read], other)
    getattr(other, link)(read)
    with pytest.raises(
        ValueError, match=f"must be written beside .* but {other} is {read}"
    ):
        refuse_same([read], other)
    other.unlink()
    other.write_bytes(b"read")
    refuse_same([read], other)
