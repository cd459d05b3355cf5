"""The names in an experiment directory, and its own."""

from __future__ import annotations

import pytest

from fluxloop.store.layout import directory_name, is_being_made, name_problem


@pytest.mark.parametrize("name", ["", " ", ".", "..", "a/b", "a\\b", "/a", "a\n", "a\x00", "\x7f", "\x9b", "\ud800"])
def test_a_name_that_is_no_path_component_is_refused(name: str) -> None:
    """Separators, dots alone, control characters and half characters."""
    assert "expected one path component" in str(name_problem(name))


@pytest.mark.parametrize("name", ["a", "baseline-test", "a b", "...", ".hidden", "naïve 測試", "é" * 100])
def test_other_names_are_taken(name: str) -> None:
    """Any text a file system takes."""
    assert name_problem(name) is None


def test_a_name_too_long_is_refused() -> None:
    """In bytes, because the file system counts them."""
    assert name_problem("é" * 101) == "expected at most 200 bytes, got 202"


def test_a_directory_is_named_by_its_second() -> None:
    """In UTC."""
    assert directory_name("demo", 1_730_471_422.9) == "demo_20241101_143022"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (".demo_20241101_143022.0123abcd.new", True),
        (".merged.0123abcd", True),
        (".demo_20241101_143022", False),
        ("demo.0123abcd.new", False),
        (".new", False),
    ],
)
def test_the_name_of_what_is_being_made(name: str, expected: bool) -> None:
    """Hidden, with a number of chance; an experiment may be hidden, too."""
    assert is_being_made(name) == expected
