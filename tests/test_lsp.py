"""gradlint in an editor: real client sessions with `gradlint lsp` over stdio."""

import asyncio
import os
import shutil
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from lsprotocol import types
from pygls.lsp.client import LanguageClient
from pygls.workspace import PositionCodec, TextDocument

from gradlint import session
from gradlint.config import Settings
from gradlint.finding import Finding, Related
from gradlint.graph.ir import Span
from gradlint.integrations.lsp_job import Linted, lint
from gradlint.integrations.lsp_view import actions, hover, marks
from gradlint.report.source import Sources
from gradlint.result import Failure, Report, TargetReport
from gradlint.source.walk import model_files, walked
from gradlint.suppress import Entry, suppress

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'rules'}",
    "GRADLINT_CACHE": "0",
    "OMP_NUM_THREADS": "1",
}
WORDS = [sys.executable, "-P", "-m", "gradlint", "lsp", "--stdio"]


class Client(LanguageClient):
    """A client that keeps the diagnostics that it is sent."""

    def __init__(self):
        super().__init__("editor", "1")
        self.told = asyncio.Queue()
        self.feature(types.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)(lambda told: self.told.put_nowait(told))

    async def diagnostics(self, uri):
        while True:
            told = await asyncio.wait_for(self.told.get(), 60)
            if told.uri == uri:
                return told.diagnostics

    def opened(self, path):
        item = types.TextDocumentItem(path.as_uri(), "python", 1, path.read_text(encoding="utf-8"))
        self.text_document_did_open(types.DidOpenTextDocumentParams(item))
        return types.TextDocumentIdentifier(path.as_uri())


@asynccontextmanager
async def session_in(folder):
    client = Client()
    await client.start_io(*WORDS, cwd=folder, env=ENVIRONMENT)
    folders = [types.WorkspaceFolder(folder.as_uri(), folder.name)]
    await client.initialize_async(
        types.InitializeParams(types.ClientCapabilities(), workspace_folders=folders, root_uri=folder.as_uri())
    )
    client.initialized(types.InitializedParams())
    yield client
    await asyncio.wait_for(client.shutdown_async(None), 10)
    client.exit(None)
    assert await asyncio.wait_for(client._server.wait(), 10) == 0
    await client.stop()


def edited(path, action):
    """The text of the file once the editor has applied the action."""
    document = TextDocument(path.as_uri(), path.read_text(encoding="utf-8"))
    for edit in sorted(
        action.edit.changes[path.as_uri()], key=lambda edit: -document.offset_at_position(edit.range.start)
    ):
        start, end = (document.offset_at_position(place) for place in (edit.range.start, edit.range.end))
        document._source = document.source[:start] + edit.new_text + document.source[end:]
    return document.source


def test_a_session_from_open_to_shutdown(tmp_path):
    path = tmp_path / "net.py"
    shutil.copy(ROOT / "examples" / "deep_sigmoid.py", path)
    lines = path.read_text(encoding="utf-8").splitlines()
    line = next(number for number, text in enumerate(lines) if "Sigmoid()" in text)

    async def talk():
        async with session_in(tmp_path) as client:
            document = client.opened(path)
            found = next(d for d in await client.diagnostics(document.uri) if d.code == "saturating-chain")
            assert found.range.start.line == found.range.end.line == line
            assert lines[line][found.range.start.character : found.range.end.character] == "nn.Sigmoid()"
            assert found.severity == types.DiagnosticSeverity.Error and found.source == "gradlint"
            assert "20 sigmoid activations" in found.message and "confirmed" in found.message
            assert Path(found.code_description.href.removeprefix("file://")).name == "saturating_chain.md"

            at = types.Position(line, 30)
            said = await client.text_document_hover_async(types.HoverParams(document, at))
            assert "20 sigmoid activations" in said.contents.value and "## What it does" in said.contents.value
            away = types.HoverParams(document, types.Position(0, 0))
            assert await client.text_document_hover_async(away) is None

            context = types.CodeActionContext([found])
            offered = await client.text_document_code_action_async(
                types.CodeActionParams(document, found.range, context)
            )
            *fixes, ignore = offered
            assert "nn.ReLU()" in edited(path, fixes[0]) and not fixes[0].is_preferred
            assert ignore.title == "suppress with # gradlint: ignore[saturating-chain]"

            other = types.CodeActionContext([found], only=[types.CodeActionKind.SourceOrganizeImports])
            asked = types.CodeActionParams(document, found.range, other)
            assert not await client.text_document_code_action_async(asked)

            (tmp_path / "gradlint.toml").write_text('exclude = ["net.py"]\n', encoding="utf-8")
            client.text_document_did_save(types.DidSaveTextDocumentParams(document))
            assert not await client.diagnostics(document.uri)

    asyncio.run(talk())


SLOW = """\
import os, pathlib, time
from torch import nn


class Slow(nn.Module):
    def __init__(self):
        super().__init__()
        pathlib.Path({mark!r}).write_text(str(os.getpid()))
        time.sleep(60)
        self.layer = nn.Linear(2, 2)

    def forward(self, x):
        return self.layer(x)
"""


def test_a_lint_under_way_blocks_nothing_and_ends_with_the_session(tmp_path):
    path, mark = tmp_path / "slow.py", tmp_path / "pid"
    path.write_text(SLOW.format(mark=str(mark)), encoding="utf-8")

    async def talk():
        async with session_in(tmp_path) as client:
            document = client.opened(path)
            await until(mark.exists)
            hovered = types.HoverParams(document, types.Position(0, 0))
            assert await client.text_document_hover_async(hovered) is None
            assert Path(f"/proc/{int(mark.read_text())}").exists()  # answered while the lint still runs
        await until(lambda: not Path(f"/proc/{int(mark.read_text())}").exists())

    asyncio.run(talk())


async def until(holds):
    for _ in range(300):
        if holds():
            return
        await asyncio.sleep(0.1)
    raise AssertionError("it never came")


# -- what is linted ----------------------------------------------------------------------------------------------------


@pytest.fixture
def run(monkeypatch):
    """The settings of the runs that were started; none is."""
    ran = []
    monkeypatch.setattr(session, "run", lambda texts, settings: ran.append(settings) or Report((), "1"))
    return ran


def test_the_nearest_configuration_holds_and_its_errors_are_told_where_it_says_them(run, tmp_path):
    configuration, path = tmp_path / "gradlint.toml", tmp_path / "net.py"
    path.write_text("model = 1\n", encoding="utf-8")
    configuration.write_text('exclude = ["gone/"]\nloss = "mse"\n', encoding="utf-8")
    lint(path, tmp_path)
    assert run[0].loss == "mse" and run[0].skip_modelless and not run[0].verbose

    configuration.write_text('loss = "ce"\nselect = ["saturating-chian"]\n', encoding="utf-8")
    (mark,) = marks(lint(path, tmp_path), str(path), PositionCodec())
    assert (mark.path, mark.number) == (str(configuration), 1) and "saturating-chain" in mark.diagnostic.message
    assert len(run) == 1


@pytest.mark.parametrize("name", ["gone/net.py", "ignored.py", "venv/lib/net.py", ".hidden/net.py", "../beside.py"])
def test_nothing_runs_that_gradlint_would_leave_out_of_the_workspace(run, tmp_path, name):
    top = tmp_path / "top"
    path = top / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("model = 1\n", encoding="utf-8")
    (top / ".git").mkdir(parents=True)
    (top / ".gitignore").write_text("ignored.py\n", encoding="utf-8")
    (top / "gradlint.toml").write_text('exclude = ["gone/"]\n', encoding="utf-8")
    assert lint(path, top) == Linted(Report((), lint(path, top).report.version)) and not run
    assert not walked(path, top, exclude=("gone/",), root=top)
    assert path not in list(model_files(top, exclude=("gone/",), root=top))


# -- how it is said ----------------------------------------------------------------------------------------------------

TEXT = """\
from torch import nn

name = '𝔊'; net = nn.Sigmoid()  # gradlint: ignore[dead-units]
long = nn.Linear(2, \\
    2)
"""


def finding(line, **given):
    text = TEXT.splitlines()[line - 1]
    column = len(text[: text.index("nn.")].encode()) if "nn." in text else 0
    span = Span("/w/net.py", line, column)
    common = {"code": "GL101", "rule": "saturating-chain", "family": "vanishing", "severity": "warning"}
    return Finding(**{**common, "verdict": "confirmed", "message": "shrinks", "span": span, **given})


def seen(*findings, error=None):
    status = "failed" if error else "analysed"
    report = Report((TargetReport("net.py", "/w/net.py", 1, status, error, findings=findings),), "1")
    return marks(Linted(report, {"/w/net.py": tuple(TEXT.split("\n"))}), "/w/net.py", PositionCodec())


def test_characters_are_counted_as_the_client_does_and_further_places_are_related():
    related = (Related(Span("/w/net.py", 4, 7), "long", "gain 0.2"), Related(None, "elsewhere", "no place"))
    (mark,) = seen(finding(3, severity="info", related=related))
    text = TEXT.splitlines()[2]
    start = len(text[: text.index("nn.")].encode("utf-16-le")) // 2
    assert (mark.diagnostic.range.start.character, mark.diagnostic.range.end.character) == (start, start + 12)
    assert mark.diagnostic.severity == types.DiagnosticSeverity.Information
    (place,) = mark.diagnostic.related_information
    assert (place.location.range.start.line, place.message) == (3, "gain 0.2 (long)")


def test_findings_that_do_not_stand_are_not_told_and_failures_are_warnings():
    assert seen(finding(3, verdict="refuted")) == []
    (mark,) = seen(error=Failure("load", "no module\nnamed x", "install it", None, 1))
    assert mark.diagnostic.severity == types.DiagnosticSeverity.Warning
    assert mark.diagnostic.message == "not analysed: no module named x\nhelp: install it"
    assert hover([mark]) is None and actions([mark], TEXT, "file:///w/net.py", PositionCodec()) == []


@pytest.mark.parametrize(
    ("line", "after"),
    [
        (3, "nn.Sigmoid()  # gradlint: ignore[dead-units, saturating-chain]"),
        (4, "# gradlint: ignore[saturating-chain]\nlong = nn.Linear(2, \\\n"),  # none may follow a backslash
    ],
)
def test_the_comment_goes_where_it_is_read(tmp_path, line, after):
    path = tmp_path / "net.py"
    path.write_text(TEXT, encoding="utf-8")
    (action,) = actions(seen(finding(line)), TEXT, path.as_uri(), PositionCodec())
    text = edited(path, action)
    assert after in text
    span = Span(str(path), line + text.count("\n") - TEXT.count("\n"))
    report = TargetReport("net.py", str(path), 1, "analysed", findings=(finding(line, span=span),))
    path.write_text(text, encoding="utf-8")
    (judged,) = suppress([Entry(report, Settings(), str(path), whole=False)], Sources())
    assert judged.findings[0].suppression.kind == "comment"


def test_an_unused_comment_is_not_suppressed_by_another():
    idle = finding(3, rule="unused-ignore", code="GL908")
    assert actions(seen(idle), TEXT, "file:///w/net.py", PositionCodec()) == []


def test_without_the_extra_there_is_one_clear_error(tmp_path):
    (tmp_path / "pygls.py").write_text("raise ModuleNotFoundError('no', name='pygls')\n", encoding="utf-8")
    environment = {**ENVIRONMENT, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ENVIRONMENT['PYTHONPATH']}"}
    done = subprocess.run(WORDS, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "error: gradlint lsp needs pygls\n  help: pip install 'torch-gradlint[lsp]'\n"
