"""Data frames as inputs: their rows are the entries."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fluxloop import Experiment
from fluxloop.exceptions import InputError
from fluxloop.inputs.cases import inputs_from
from fluxloop.records import Case

COLUMNS: dict[str, list[Any]] = {
    "input": ["hi", "", "bye", None],
    "persona": ["novice", None, "expert", None],
    "level": [1, 2, None, None],
}


def pandas(columns: dict[str, list[Any]]) -> Any:
    return pd.DataFrame(columns)


def polars(columns: dict[str, list[Any]]) -> Any:
    return pytest.importorskip("polars").DataFrame(columns)


def pyarrow(columns: dict[str, list[Any]]) -> Any:
    return pytest.importorskip("pyarrow").table(columns)


def record_batch(columns: dict[str, list[Any]]) -> Any:
    return pytest.importorskip("pyarrow").RecordBatch.from_pydict(columns)


FRAMES = [pandas, polars, pyarrow, record_batch]


def told(source: Any, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        inputs_from(source, **options)
    return str(caught.value)


@pytest.mark.parametrize("frame", FRAMES)
def test_rows_are_entries(frame: Any) -> None:
    """Each row is an entry by its columns; missing cells are absent, and a row of nothing else is none."""
    inputs = inputs_from(frame(COLUMNS))
    assert list(inputs.cases) == [
        Case(0, "input_001", "hi", "novice", metadata={"level": 1}),
        Case(1, "input_002", "", metadata={"level": 2}),
        Case(2, "input_003", "bye", "expert"),
    ]
    assert inputs.empty_rows == 1


@pytest.mark.parametrize("frame", FRAMES)
def test_columns_by_other_names(frame: Any) -> None:
    """A field may be taken from another column; where its cell is missing the row is told."""
    assert [case.input for case in inputs_from(frame({"q": ["a", "b"]}), names={"input": "q"}).cases] == ["a", "b"]
    assert told(frame({"q": ["a", None], "x": [1, 2]}), names={"input": "q"}) == (
        "inputs:2: its 'q' is missing; fill the cell, or leave the row out"
    )
    assert told(frame({"input": ["a", None], "x": [1, 2]})).startswith("inputs:2: its 'input' is missing")
    assert told(frame({"question": ["a"]})) == (
        "inputs:1: no 'input'; it has 'question'; name the one to use with --map input=question"
    )


@pytest.mark.parametrize("frame", FRAMES)
def test_an_empty_frame(frame: Any) -> None:
    """A frame without rows holds no inputs."""
    assert told(frame({"input": []})) == "inputs: holds no inputs; it needs at least one"


@pytest.mark.parametrize("missing", [None, math.nan, np.nan, np.float32("nan"), pd.NA, pd.NaT])
def test_what_pandas_calls_missing(missing: Any) -> None:
    """Whatever stands for a missing value in pandas, the cell is absent."""
    frame = pd.DataFrame({"input": ["a", "b"], "x": pd.Series([missing, "there"], dtype=object)})
    assert [case.metadata for case in inputs_from(frame).cases] == [None, {"x": "there"}]


def test_scalars_of_numpy_are_pythons() -> None:
    """An agent gets plain Python values, and an id may be an integer of numpy."""
    frame = pd.DataFrame({"input": [1, 2], "id": [7, 8], "x": [np.float64(1.5), 2.5], "y": [np.array([1]), None]})
    first, _ = inputs_from(frame).cases
    assert first == Case(0, "7", 1, metadata={"x": 1.5, "y": [1]})
    assert type(first.input) is int


def test_an_index_with_a_name_is_a_column() -> None:
    """An index that was given a name holds data; one without is only a count."""
    frame = pd.DataFrame({"input": ["a"], "id": ["x"]})
    assert [case.id for case in inputs_from(frame.set_index("id")).cases] == ["x"]
    assert [case.metadata for case in inputs_from(frame).cases] == [None]


def test_a_subclass_of_a_frame() -> None:
    """Frames of other packages that are pandas' own underneath are read as these."""

    class Frame(pd.DataFrame):
        pass

    assert len(inputs_from(Frame({"input": ["a"]})).cases) == 1


def test_two_columns_of_one_name() -> None:
    """No cell is dropped in silence."""
    frame = pd.DataFrame([["a", "b"]], columns=["input", "input"])
    assert told(frame) == "inputs: the frame has two columns 'input'; rename one"


def test_frames_that_are_not_known() -> None:
    """A frame of another package, or one that is not computed yet, is told with what to give."""

    class DataFrame:
        def __iter__(self) -> Any:
            return iter(["input"])

    name = __name__.partition(".")[0]
    assert told(DataFrame()).startswith(f"inputs: expected a list of entries, got a {name}.")
    assert told(DataFrame()).endswith("DataFrame; give its rows, as a list of mappings")
    lazy = pytest.importorskip("polars").LazyFrame({"input": ["a"]})
    assert told(lazy) == "inputs: expected a list of entries, got a polars.LazyFrame; collect() it first"


def test_a_column_is_a_list_of_texts() -> None:
    """One column of a frame serves as the list of inputs."""
    assert [case.input for case in inputs_from(pd.DataFrame(COLUMNS)["input"][:2]).cases] == ["hi", ""]


def test_a_frame_runs(tmp_path: Path) -> None:
    """An experiment runs the rows, not the names of the columns, and says how many were empty."""
    experiment = Experiment(target=str.upper, inputs=pd.DataFrame(COLUMNS), output_dir=tmp_path, progress=False)
    assert str(experiment.preview()).startswith("inputs      3 (1 empty row skipped)\n")
    assert sorted(trace.output for trace in experiment.run()) == ["", "BYE", "HI"]


def test_no_package_of_frames_is_imported() -> None:
    """Inputs from Python cost none of the packages whose frames they could be."""
    code = (
        "import sys\nfrom fluxloop.inputs.cases import inputs_from\ninputs_from(['a', {'input': 1}])\n"
        "print({'pandas', 'polars', 'pyarrow', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
