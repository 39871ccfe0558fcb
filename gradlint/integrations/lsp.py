"""`gradlint lsp`: a language server on pygls that lints a Python file when it is opened or saved, never as it is typed.

Each lint is a process of its own: the server stays free to answer, and a newer lint of the same file ends the older.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from lsprotocol import types
from pygls.lsp.server import LanguageServer
from pygls.uris import to_fs_path

from gradlint.config import default_jobs
from gradlint.integrations.lsp_job import Linted
from gradlint.integrations.lsp_view import Mark, actions, hover, marks
from gradlint.serialise import from_data
from gradlint.version import __version__

PAUSE = 0.3  # seconds that a file must rest before it is linted: "save all" and auto-save come in bursts


class Desk:
    """The files that are linted for one client, and what was found in each."""

    def __init__(self, server: LanguageServer) -> None:
        self.server = server
        self.slots = asyncio.Semaphore(default_jobs())
        self.tasks: dict[str, asyncio.Task[None]] = {}  # path of a file → its lint
        self.found: dict[str, list[Mark]] = {}  # path of a file → what its lint found, there and in other files
        self.uris: dict[str, str] = {}  # path of an open file → the client's name for it

    def ask(self, uri: str) -> None:
        """Have a file linted soon; a lint of it that is under way ends."""
        path = _path(uri)
        if path and path.endswith(".py"):
            self.uris[path] = uri
            self._end(path)
            self.tasks[path] = asyncio.get_running_loop().create_task(self._lint(path))

    def forget(self, uri: str) -> None:
        """Take back what was found from a file that was closed."""
        path = _path(uri)
        self._end(path)
        self._take(path, [])
        self.uris.pop(path, None)

    async def close(self) -> None:
        """End every lint, and wait until its processes are gone."""
        tasks = list(self.tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def on(self, uri: str, first: int, last: int) -> list[Mark]:
        """What was found on these lines, 0-based, as far as they still read as they did then."""
        path, lines = _path(uri), self.server.workspace.get_text_document(uri).source.splitlines()
        return [
            mark
            for mark in self._at(path)
            if first <= mark.number <= last and mark.number < len(lines) and lines[mark.number] == mark.line
        ]

    def _end(self, path: str) -> None:
        if task := self.tasks.pop(path, None):
            task.cancel()

    def _at(self, path: str) -> list[Mark]:
        """What was found in a file, whichever file's lint found it; alike only once."""
        found = [mark for each in self.found.values() for mark in each if mark.path == path]
        return list({repr(mark.diagnostic): mark for mark in found}.values())

    def _take(self, path: str, found: list[Mark]) -> None:
        """Keep what the lint of a file found, and tell the client of every file for which that changes something."""
        changed = {path, *(mark.path for mark in (*self.found.get(path, ()), *found))}
        self.found[path] = found
        for each in sorted(changed):
            uri = self.uris.get(each) or Path(each).as_uri()
            told = [mark.diagnostic for mark in self._at(each)]
            self.server.text_document_publish_diagnostics(types.PublishDiagnosticsParams(uri, told))

    async def _lint(self, path: str) -> None:
        await asyncio.sleep(PAUSE)
        async with self.slots:
            status, answer, printed = await _run(path, self._top(path))
        if status == 0:
            linted = from_data(Linted, json.loads(answer))
            self._take(path, marks(linted, path, self.server.workspace.position_codec))
        else:
            message = f"{path} could not be linted (exit code {status}):\n{printed.decode(errors='replace')}"
            self.server.window_log_message(types.LogMessageParams(types.MessageType.Error, message))

    def _top(self, path: str) -> str:
        """The innermost workspace folder around the file; without one, the first; "" where there are none."""
        workspace = self.server.workspace
        folders = [_path(uri) for uri in workspace.folders] or [_path(workspace.root_uri or "")]
        around = [folder for folder in folders if folder and Path(path).is_relative_to(folder)]
        return max(around, key=len, default=folders[0])


def build() -> LanguageServer:
    """The server with its features."""
    server = LanguageServer("gradlint", __version__)
    desk = Desk(server)

    @server.feature(types.TEXT_DOCUMENT_DID_OPEN)
    def opened(params: types.DidOpenTextDocumentParams) -> None:
        desk.ask(params.text_document.uri)

    @server.feature(types.TEXT_DOCUMENT_DID_SAVE)
    def saved(params: types.DidSaveTextDocumentParams) -> None:
        desk.ask(params.text_document.uri)

    @server.feature(types.TEXT_DOCUMENT_DID_CLOSE)
    def closed(params: types.DidCloseTextDocumentParams) -> None:
        desk.forget(params.text_document.uri)

    @server.feature(types.TEXT_DOCUMENT_HOVER)
    def hovered(params: types.HoverParams) -> types.Hover | None:
        return hover(desk.on(params.text_document.uri, params.position.line, params.position.line))

    @server.feature(
        types.TEXT_DOCUMENT_CODE_ACTION, types.CodeActionOptions(code_action_kinds=[types.CodeActionKind.QuickFix])
    )
    def asked(params: types.CodeActionParams) -> list[types.CodeAction]:
        uri, only = params.text_document.uri, params.context.only
        if only is not None and types.CodeActionKind.QuickFix not in only:
            return []
        document = server.workspace.get_text_document(uri)
        found = desk.on(uri, params.range.start.line, params.range.end.line)
        return actions(found, document.source, uri, server.workspace.position_codec)

    @server.feature(types.SHUTDOWN)
    async def shut(_: None) -> None:
        await desk.close()

    return server


def serve() -> None:
    """Serve one client on stdin and stdout until it leaves; what else is printed goes to stderr."""
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    build().start_io(sys.stdin.buffer, channel)


def _path(uri: str) -> str:
    """The file behind a URI, resolved; "" for what is no file."""
    path = to_fs_path(uri) if uri.startswith("file:") else None
    return str(Path(path).resolve()) if path else ""


async def _run(path: str, top: str) -> tuple[int, bytes, bytes]:
    """Lint a file in a process of its own, which ends when this is cancelled: exit code, stdout and stderr."""
    code = f"import sys; sys.path[:] = {sys.path!r}; from gradlint.integrations.lsp_job import main; "
    words = [sys.executable, "-P", "-c", f"{code}sys.exit(main(sys.argv[1:]))", path, top]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe, stderr=pipe)
    assert process.stdout and process.stderr
    try:
        answer, printed = await asyncio.gather(process.stdout.read(), process.stderr.read())
        return await process.wait(), answer, printed
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
