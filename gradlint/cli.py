"""The command line: parse → run → write → exit status. Imports torch nowhere; the report alone goes to stdout."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from gradlint import checking
from gradlint import report as reports
from gradlint.checking import INTERRUPTED, Repair, Upkeep, failure, refuse, show
from gradlint.config import COLORS, DTYPES, FORMATS, LOSSES, OPTIMIZERS, THRESHOLDS
from gradlint.config_file import find, merge
from gradlint.config_keys import device, loss, memory, named, suggest
from gradlint.error import GradlintError, UsageError
from gradlint.finding import FAMILIES
from gradlint.report.outcome import CLEAN, FAILED, FOUND
from gradlint.result import Failure
from gradlint.version import __version__

CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
# The options of `check` by what they are about, in the order in which the help shows them; the last takes the rest.
SECTIONS: Mapping[str, tuple[str, ...]] = {
    "The model": ("inputs", "init", "loss", "data", "weights", "all_classes"),
    "What is measured": (
        *("probe", "device", "seed", "seeds", "optimizer", "dtype", "steps", "rate", "timeout", "memory", "jobs"),
    ),
    "Fixes": ("fix", "prove", "write", "differences", "unsafe"),
    "Which findings": ("select", "ignore", "fail_on", "exit_zero", "baseline", "written", "pruned"),
    "Reports": ("output_format", "output", "quiet", "verbose", "statistics", "color", "debug"),
    "Files and configuration": (),
}
BARE = "gradlint.bare"  # set when the command line is empty: help, unless models are configured
EPILOG = """\b
exit status: 0 nothing found · 1 findings at or above --fail-on · 2 could not do the job
gradlint runs the file it is given, as pytest does"""


class Group(click.Group):
    """A group whose default command is `check`: `gradlint model.py` is `gradlint check model.py`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `check` first unless another command, --help or --version is asked for."""
        if not args or args[0] not in {*self.commands, "--help", "-h", "--version"}:
            ctx.meta[BARE] = not args
            args = ["check", *args]
        return super().parse_args(ctx, args)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Show what most people type."""
        for i, words in enumerate(("[OPTIONS] TARGET…", "diff BASE HEAD [TARGET…]", "rule NAME|--all|--new NAME")):
            formatter.write_usage("gradlint", words, prefix="       " if i else "Usage: ")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the options of `check` too, so that one page says it all."""
        check.format_options(click.Context(check, info_name="check", **CONTEXT), formatter)
        self.format_commands(ctx, formatter)


class Check(click.Command):
    """`check`, whose many options are listed in sections."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each section with its options, in the order in which they are declared."""
        listed = {name for names in SECTIONS.values() for name in names}
        for title, names in SECTIONS.items():
            options = [p for p in self.get_params(ctx) if isinstance(p, click.Option)]
            shown = [p for p in options if (p.name in names if names else p.name not in listed)]
            records = [record for parameter in shown if (record := parameter.get_help_record(ctx))]
            if records:
                with formatter.section(title):
                    formatter.write_dl(records, col_max=32)


class Parsed(click.ParamType[Any]):
    """An option whose text a function of `gradlint.config` reads; `hint` says what fits."""

    def __init__(self, name: str, read: Callable[[Any], Any], hint: Callable[[str], str]) -> None:
        self.name, self.read, self.hint = name, read, hint

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value as its field of Settings holds it."""
        try:
            return self.read(value)
        except ValueError:
            self.fail(f"{value!r} is not a {self.name}: {self.hint(value)}", param, ctx)


def _places(ctx: click.Context, _: click.Parameter, begun: str) -> list[CompletionItem]:
    """What completes a TARGET: files, and where none is typed yet the other commands."""
    group = ctx.find_root().command
    names = group.commands if isinstance(group, click.Group) and ctx.meta.get(BARE) else {}
    commands = [CompletionItem(name) for name in names if begun and name.startswith(begun)]
    return commands or [CompletionItem(begun, type="file")]


def _rules(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem]:
    """What completes a RULE: names, with what the rule does."""
    from gradlint import registry

    return [CompletionItem(r.name, help=registry.summary(r)) for r in registry.rules() if r.name.startswith(begun)]


LOSS = Parsed("loss", loss, lambda text: suggest(text, LOSSES))
DEVICE = Parsed("device", device, lambda _: "auto, cpu, cuda, cuda:N, mps or meta")
DATA = Parsed("name", named, lambda _: "write it as module:function")
RATE = click.FloatRange(0, min_open=True)
SIZE = Parsed("size", memory, lambda _: "write it as 4G or 512M")


@click.group(cls=Group, context_settings=CONTEXT, epilog=EPILOG)
@click.version_option(__version__, prog_name="gradlint", message="%(prog)s %(version)s")
def cli() -> None:
    """Find out whether gradients will reach every layer of a network, before training it.

    TARGET is model.py, model.py:EXPR (a name, or a call such as Net(num_classes=10)), package.module:EXPR, net.onnx,
    program.pt2, net.pt (TorchScript) or a folder.
    """


@cli.command(cls=Check, epilog=EPILOG)
@click.argument("targets", nargs=-1, metavar="TARGET…", shell_complete=_places)
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="SPEC",
    help="example input, 'x=float32[8,3,32,32]~N(0,1)' or 'int64[8,128]<32000'; repeatable",
)
@click.option("--init", multiple=True, metavar="NAME=VALUE", help="constructor argument; repeatable")
@click.option(
    "--loss", type=LOSS, metavar="LOSS", help=f"{', '.join(LOSSES)} or module:function [default: fits the output]"
)
@click.option(
    "--data", type=DATA, metavar="MODULE:NAME", help="your batches: an iterable, or a function that makes one"
)
@click.option("--weights", type=click.Path(), metavar="FILE", help="checkpoint to load into the model")
@click.option(
    "--all-classes", is_flag=True, default=None, help="lint every module class of a file, parts of a model too"
)
@click.option(
    "--select",
    multiple=True,
    metavar="RULE",
    shell_complete=_rules,
    help="rule name, code, code prefix or family; repeatable [default: all]",
)
@click.option("--ignore", multiple=True, metavar="RULE", shell_complete=_rules, help="the same, to leave out")
@click.option("--probe/--no-probe", default=None, help="measure with forward and backward passes [default: probe]")
@click.option(
    "--try-fixes/--no-try-fixes", "fix", default=None, help="measure each fix before offering it [default: try-fixes]"
)
@click.option(
    "--prove", is_flag=True, default=None, help="train the model as it is and with its best fix for --steps [200]"
)
@click.option("--fix", "write", is_flag=True, help="write fixes that keep the function computed, and lint again")
@click.option("--diff", "differences", is_flag=True, help="show what --fix would change, and change nothing")
@click.option(
    "--unsafe-fixes", "unsafe", is_flag=True, help="with --fix or --diff: fixes that change the function, too"
)
@click.option("--device", type=DEVICE, metavar="DEVICE", help="auto, cpu, cuda, cuda:N, mps or meta [default: auto]")
@click.option("--seed", type=click.IntRange(0), metavar="N", help="first seed of the probe [default: 0]")
@click.option(
    "--seeds", type=click.IntRange(1), metavar="N", help="most seeds to spend where one leaves doubt [default: 5]"
)
@click.option("--optimizer", type=click.Choice(OPTIMIZERS), help="what the model will be trained with [default: any]")
@click.option("--steps", type=click.IntRange(0), metavar="N", help="follow the gradient through N training steps")
@click.option(
    "--lr",
    "rate",
    type=RATE,
    metavar="RATE",
    help="learning rate of --steps [default: sgd 0.01, adam 0.001] and --prove [default: the best of three]",
)
@click.option("--dtype", type=click.Choice(DTYPES), help="measure what is lost in this number format, too (autocast)")
@click.option("--timeout", type=click.FloatRange(0), metavar="SECONDS", help="limit for each target [default: 120]")
@click.option("--memory", type=SIZE, metavar="SIZE", help="limit for each target, such as 8G; the probe keeps to it")
@click.option("-j", "--jobs", type=click.IntRange(1), metavar="N", help="targets at once [default: cores, at most 4]")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="gitignore pattern left out of folders; repeatable")
@click.option(
    "--skip-modelless", is_flag=True, default=None, help="skip files without a model, also when they are named"
)
@click.option(
    "--cache/--no-cache",
    default=None,
    envvar="GRADLINT_CACHE",
    help="reuse results of unchanged models, in .gradlint_cache [default: cache]",
)
@click.option("--baseline", type=click.Path(), metavar="FILE", help="findings listed in FILE do not fail the run")
@click.option("--write-baseline", "written", type=click.Path(), metavar="FILE", help="list the findings in FILE")
@click.option("--prune-baseline", "pruned", is_flag=True, help="drop what is no longer found from the baseline")
@click.option(
    "--output-format",
    type=click.Choice(FORMATS),
    envvar="GRADLINT_OUTPUT_FORMAT",
    help="what stdout shows [default: full]",
)
@click.option(
    "-o",
    "--output",
    multiple=True,
    metavar="FILE",
    help="write a report to FILE too, in the format of its suffix, or FORMAT=FILE; repeatable",
)
@click.option("--fail-on", type=click.Choice(THRESHOLDS), help="exit with 1 from this severity on [default: warning]")
@click.option("--exit-zero", is_flag=True, default=None, help="exit with 0 whatever is found")
@click.option("-q", "--quiet", is_flag=True, default=None, help="only findings at or above --fail-on")
@click.option("-v", "--verbose", is_flag=True, default=None, help="every finding in full, every layer of the chart")
@click.option("--debug", is_flag=True, default=None, help="tracebacks of errors")
@click.option("--statistics", is_flag=True, help="count findings by rule instead of showing them")
@click.option(
    "--color",
    type=click.Choice(COLORS),
    envvar="GRADLINT_COLOR",
    help="[default: auto, as NO_COLOR and FORCE_COLOR say]",
)
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    envvar="GRADLINT_CONFIG",
    metavar="FILE",
    help="configuration file [default: the nearest to the targets]",
)
@click.option("--isolated", is_flag=True, help="read no configuration file")
@click.option("--show-settings", is_flag=True, help="print each setting and where it comes from, and lint nothing")
@click.option("--show-files", is_flag=True, help="print what would be linted, and lint nothing")
@click.pass_context
def check(
    ctx: click.Context,
    /,
    *,
    targets: Sequence[str],
    file: Path | None,
    isolated: bool,
    written: str | None,
    pruned: bool,
    statistics: bool,
    write: bool,
    differences: bool,
    unsafe: bool,
    show_settings: bool,
    show_files: bool,
    **given: Any,
) -> None:
    """Lint models (the default command)."""
    told = {name: value for name, value in given.items() if value is not None and value != ()}
    configuration = find(targets, file, isolated=isolated)
    settings = merge(configuration, told)
    if show_settings or show_files:
        show(targets, settings, configuration, told, both=(show_settings, show_files))
        return
    if not (targets or settings.models):
        if ctx.meta.get(BARE):
            raise click.exceptions.NoArgsIsHelpError(ctx.find_root())
        raise UsageError("no TARGET… is given and no model configured", "gradlint --help lists every option")
    repair = Repair(write, differences, unsafe)
    try:
        status = checking.check(
            targets, settings, configuration, Upkeep(written, pruned), repair, statistics=statistics
        )
    except GradlintError as error:
        status = refuse(failure(error), settings.output_format, debug=settings.debug)
    except KeyboardInterrupt:
        status = refuse(INTERRUPTED, settings.output_format)
    ctx.exit(CLEAN if settings.exit_zero and status == FOUND else status)


@cli.command(short_help="Compare the findings of two git refs, paths or saved reports.")
@click.argument("base")
@click.argument("head")
@click.argument("targets", nargs=-1, metavar="[TARGET]…")
@click.option("--format", "shown", type=click.Choice(("text", "markdown", "json")), default="text", show_default=True)
@click.option(
    "-o",
    "--output",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="write it to FILE instead, in the format of its suffix (.md, .json, .txt) or of --format; repeatable",
)
@click.option("--fail-on", type=click.Choice(THRESHOLDS), default="warning", show_default=True)
@click.option("--probe/--no-probe", default=True, help="measure both sides")
@click.option("--config", type=click.Path(exists=True, resolve_path=True), metavar="FILE", help="for both sides")
@click.option("--head-name", metavar="TEXT", help="what a comment calls HEAD [default: as it was given]")
def diff(
    *,
    base: str,
    head: str,
    targets: Sequence[str],
    shown: str,
    output: Sequence[Path],
    fail_on: str,
    probe: bool,
    config: str | None,
    head_name: str | None,
) -> None:
    """Compare the findings of two git refs, paths or saved JSON reports; exit with 1 only on new ones."""
    from gradlint import comparison
    from gradlint.diff import diff as held

    checking.writable(output)
    options = ["--no-try-fixes", *([] if probe else ["--no-probe"]), *(["--config", config] if config else [])]
    with checking.progress([f"{base} and {head}"]):
        found = held(base, head, targets, options)

    def lines(form: str) -> str:
        return "\n".join(comparison.written(found, form, (base, head_name or head))) + "\n"

    for path in output:
        path.write_text(lines(comparison.SUFFIXES.get(path.suffix, shown)), encoding="utf-8")
    if not output:
        click.echo(lines(shown), nl=False)
    click.get_current_context().exit(FAILED if found.failed else FOUND if found.worse(fail_on) else CLEAN)


@cli.command()
@click.argument("name", required=False, shell_complete=_rules)
@click.option("--all", "every", is_flag=True, help="list every rule")
@click.option("--new", metavar="NAME", help="write the two files of a new rule, to be changed")
@click.option("--family", type=click.Choice(FAMILIES), default="units", show_default=True, help="of the new rule")
@click.option("--code", metavar="CODE", help="of the new rule [default: the next free one of the family]")
@click.option("--to", "folder", type=click.Path(path_type=Path), metavar="FOLDER", help="where the new rule goes")
@click.option("--color", type=click.Choice(COLORS), default="auto")
def rule(
    *,
    name: str | None,
    every: bool,
    new: str | None,
    family: str,
    code: str | None,
    folder: Path | None,
    color: reports.Color,
) -> None:
    """Explain a rule, list them all, or begin a new one."""
    from gradlint import registry

    if new:
        from gradlint import scaffold

        written = scaffold.scaffold(new, family, code, folder, registry.rules())
        for line in (*map(str, written), *scaffold.steps(written, new)):
            click.echo(line)
        return
    if every == bool(name):
        raise UsageError("give the name of one rule, or --all", "gradlint rule saturating-chain")
    if every:
        from gradlint import listing

        for line in listing.rules(registry.rules(), registry.summary):
            click.echo(line)
        return
    page = registry.page(registry.find(str(name)))
    if reports.colored(color, sys.stdout):
        _typeset(page)
    else:
        click.echo(page)


@cli.command(short_help="Serve an editor: a language server on stdin and stdout.")
@click.option("--stdio", is_flag=True, hidden=True, help="what some editors add; there is no other way")
def lsp(*, stdio: bool) -> None:
    """Serve an editor: a language server on stdin and stdout (needs the extra `lsp`)."""
    try:
        from gradlint.integrations.lsp import serve
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("pygls", "lsprotocol"):
            raise
        raise UsageError("gradlint lsp needs pygls", "pip install 'torch-gradlint[lsp]'") from error
    serve()


def main(args: Sequence[str] | None = None) -> None:
    """The `gradlint` command. Exits with 0, 1 or 2; whatever goes wrong is one message, and a valid report in JSON."""
    words = list(sys.argv[1:] if args is None else args)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        status = _command(words)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader (head, a pager) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the interpreter's last flush is quiet
        status = FAILED
    sys.exit(status)


def _command(words: Sequence[str]) -> int:
    try:
        return int(cli.main(words, prog_name="gradlint", standalone_mode=False) or CLEAN)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return FAILED
    except (click.Abort, KeyboardInterrupt):
        return refuse(INTERRUPTED, _asked(words))
    except click.ClickException as error:
        problem = Failure("usage", _lower(error.format_message()), "gradlint --help lists every option")
        return refuse(problem, _asked(words))
    except GradlintError as error:
        return refuse(failure(error), _asked(words), debug="--debug" in words)
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001  # the last line of defence: a status of 1 would say that a model is ill
        problem = Failure(
            "internal", f"{type(error).__name__}: {error}", "this is a bug in gradlint; --debug says more"
        )
        return refuse(problem, _asked(words), debug="--debug" in words)


def _asked(words: Sequence[str]) -> str:
    """The output format, as far as it can be told from a command line that may not parse."""
    last = ""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        last = following if word == "--output-format" else last
        last = word.partition("=")[2] if word.startswith("--output-format=") else last
    return last


def _typeset(page: str) -> None:
    from rich.console import Console
    from rich.markdown import Markdown

    Console(force_terminal=True).print(Markdown(page))


def _lower(message: str) -> str:
    """A message of click in our style: lower case, no full stop."""
    return message[:1].lower() + message[1:].rstrip(".")
