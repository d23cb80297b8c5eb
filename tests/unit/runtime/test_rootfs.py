"""Paths, programs and users inside a root file system."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.runtime.rootfs import (
    DEFAULT_PATH,
    Unrunnable,
    check_directory,
    find_command,
    find_user,
    resolve,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for directory in ("usr/bin", "etc", "srv"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "absolute").symlink_to("/usr/bin")
    (tmp_path / "outside").symlink_to("../../../../../../etc")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "etc/resolv.conf").symlink_to("../run/nowhere/resolv.conf")
    program = tmp_path / "usr/bin/program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    (tmp_path / "usr/bin/data").write_text("")
    (tmp_path / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:34:web:/var/www:/bin/sh\nodd:x:a:b:::\n"
    )
    (tmp_path / "etc/group").write_text("web:x:34:\nlog:x:35:other,web\nadm:x:36:other\n")
    return tmp_path


def test_links_stay_inside(root: Path) -> None:
    base = str(root)
    assert resolve(base, "/bin/program") == f"{base}/usr/bin/program"
    assert resolve(base, "/absolute/../x") == f"{base}/usr/x"
    assert resolve(base, "/outside/passwd") == f"{base}/etc/passwd"
    assert resolve(base, "../../..") == base
    assert resolve(base, "/etc/resolv.conf") == f"{base}/run/nowhere/resolv.conf"
    assert resolve("", "/") == "/"
    with pytest.raises(Unrunnable, match="too many symbolic links"):
        resolve(base, "/loop/x")


def find(root: Path, command: str, *, search_path: str = DEFAULT_PATH, where: str = "/") -> str:
    return find_command(str(root), command, search_path=search_path, working_directory=where)


def test_programs_are_found_as_the_task_will(root: Path) -> None:
    assert find(root, "program") == "/usr/bin/program"
    assert find(root, "program", search_path="bin", where="/usr") == "/usr/bin/program"
    assert find(root, "/bin/program") == "/bin/program"
    assert find(root, "./program", where="/usr/bin") == "/usr/bin/./program"


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("nope", 'exec: "nope": executable file not found in $PATH'),
        ("data", 'exec: "data": executable file not found in $PATH'),
        ("/nope", 'exec: "/nope": stat /nope: no such file or directory'),
        ("/usr/bin", 'exec: "/usr/bin": is a directory'),
        ("/usr/bin/data", 'exec: "/usr/bin/data": permission denied'),
    ],
)
def test_what_cannot_be_executed(root: Path, command: str, text: str) -> None:
    with pytest.raises(Unrunnable) as error:
        find(root, command)
    assert str(error.value) == text


def test_working_directories(root: Path) -> None:
    check_directory(str(root), "/srv")
    with pytest.raises(Unrunnable, match='working directory "/nope": no such directory'):
        check_directory(str(root), "/nope")


def test_users(root: Path) -> None:
    base = str(root)
    web = find_user(base, "web")
    assert (web.uid, web.gid, web.groups, web.home) == (33, 34, [35], "/var/www")
    assert find_user(base, "33").home == "/var/www"
    assert find_user(base, "1234").gid == 0
    other = find_user(base, "web:adm")
    assert (other.uid, other.gid, other.groups) == (33, 36, [])
    assert find_user(base, "33:99").gid == 99
    for unknown in ("nobody", "web:nope"):
        with pytest.raises(Unrunnable, match="no matching entries"):
            find_user(base, unknown)
