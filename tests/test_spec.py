import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradlint.error import UsageError
from gradlint.load.spec import DTYPES, FLOATS, INTEGERS, InputSpec, Values, parse, parse_all

READ = {
    "float32[8,3,32,32]": InputSpec("float32", (8, 3, 32, 32)),
    "x=float32[8]": InputSpec("float32", (8,), "x"),
    "x=float32[8]~U(0,1)": InputSpec("float32", (8,), "x", Values("uniform", 0, 1)),
    "float32[8]~N(-1.5,2e-3)": InputSpec("float32", (8,), "", Values("normal", -1.5, 0.002)),
    "int64[8,128]<32000": InputSpec("int64", (8, 128), "", Values("integers", 0, 32000)),
    "mask=bool[8,128]": InputSpec("bool", (8, 128), "mask"),
    "t=float32[]": InputSpec("float32", (), "t"),
    "batch.image=float32[2,3]": InputSpec("float32", (2, 3), "batch.image"),
    " ids = long [ 8 , 16 ] < 50 ": InputSpec("int64", (8, 16), "ids", Values("integers", 0, 50)),
    "double[4]": InputSpec("float64", (4,)),
}

# text: (position, what was expected there)
REFUSED = {
    "float32": (8, "'['"),
    "float32[8,3": (12, "',' or ']'"),
    "float32[8,,3]": (11, "a dimension"),
    "float32[0]": (9, "a dimension"),
    "float32[-1,3]": (9, "a dimension"),
    "float33[8]": (1, "a dtype"),
    "x=[8]": (3, "a dtype"),
    "8,3,32,32": (1, "a dtype"),
    "float32[8]~X(0,1)": (12, "'U(low,high)' or 'N(mean,std)'"),
    "float32[8]~U(1,1)": (16, "a high end above 1"),
    "float32[8]~N(0,0)": (16, "a standard deviation above 0"),
    "float32[8]~U(0 1)": (16, "','"),
    "float32[8]<10": (11, "only integers have a bound"),
    "int64[8]~U(0,1)": (9, "'<bound'"),
    "int64[8]<0": (10, "the exclusive upper bound"),
    "float32[8] extra": (12, "the end"),
}


@pytest.mark.parametrize("text", READ)
def test_a_spec_reads_as_written(text: str) -> None:
    assert parse(text) == READ[text]


@pytest.mark.parametrize("text", REFUSED)
def test_a_wrong_spec_names_the_position_what_was_expected_and_an_example(text: str) -> None:
    position, expected = REFUSED[text]
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert expected in caught.value.message
    assert f"at position {position}" in caught.value.message
    assert "--input 'x=float32" in caught.value.hint


def test_a_name_given_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="'x' is given twice"):
        parse_all(["x=float32[1]", "float32[2]", "x=float32[3]"])


def test_unnamed_specs_may_repeat() -> None:
    assert [spec.shape for spec in parse_all(["float32[1]", "float32[1]"])] == [(1,), (1,)]


numbers = st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: x + 0.0)
normal = st.builds(Values, st.just("normal"), numbers, st.floats(1e-6, 1e6))
uniform = st.tuples(numbers, st.floats(1e-3, 1e6)).map(lambda p: Values("uniform", p[0], p[0] + p[1]))
bound = st.integers(1, 10**9).map(lambda high: Values("integers", 0, high))
laws = {**dict.fromkeys(FLOATS, normal | uniform), **dict.fromkeys(INTEGERS, bound)}


@st.composite
def specs(draw: st.DrawFn) -> InputSpec:
    dtype = draw(st.sampled_from(DTYPES))
    values = draw(st.none() | laws.get(dtype, st.none()))
    name = draw(st.from_regex(r"|[A-Za-z_]\w*(\.\w+)?", fullmatch=True))
    return InputSpec(dtype, tuple(draw(st.lists(st.integers(1, 4096), max_size=5))), name, values)


@given(specs())
def test_every_spec_survives_being_written_and_read(spec: InputSpec) -> None:
    assert parse(str(spec)) == spec


@given(st.text(alphabet="x=float32int64bool[]8,<~UN(01). ", max_size=24))
def test_any_text_is_read_or_refused_with_a_position(text: str) -> None:
    try:
        parse(text)
    except UsageError as error:
        assert "at position" in error.message


def test_reading_a_spec_does_not_import_torch() -> None:
    code = "import sys, gradlint.load.spec as s; s.parse('float32[1]'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_environment())
    assert done.stdout.strip() == "False"


def _environment() -> dict[str, str]:
    return {"PYTHONPATH": ":".join(sys.path)}
