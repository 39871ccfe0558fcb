"""Pretrained weights are never fetched: a model that asks for some is built with its initial ones, and says so."""

from __future__ import annotations

import contextlib
import re
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlparse

import torch
from torch import nn

from gradlint.load.environment import patched

# Names under which libraries keep torch.hub's downloader.
DOWNLOADERS = ("load_state_dict_from_url", "load_url")


class NoWeights(dict[str, Any]):
    """Stands for a state dict that was not fetched; loading it changes nothing."""

    def __missing__(self, key: str) -> NoWeights:
        return self

    def __delitem__(self, key: str) -> None:
        self.pop(key, None)


@dataclass
class Downloads:
    """What was asked for and not fetched."""

    asked: list[str] = field(default_factory=list)
    empty: list[nn.Module] = field(default_factory=list)  # those that were to get the weights
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    done: dict[str, object] = field(default_factory=dict)  # module name → the module that was patched

    def note(self, name: str) -> NoWeights:
        """Remember a request, and answer it with nothing."""
        if name not in self.asked:
            self.asked.append(name)
        return NoWeights()

    def notes(self) -> list[str]:
        """What the report says."""
        return [f"pretrained weights not fetched, judged at its initial weights: {name}" for name in self.asked]

    def patch(self) -> None:
        """Patch the libraries that have been imported since the last call."""
        for module, change in PATCHES.items():
            loaded = sys.modules.get(module)
            if loaded is not None and self.done.get(module) is not loaded:  # a broken import may have been started anew
                self.done[module] = loaded
                change(self, loaded)


@contextlib.contextmanager
def offline() -> Iterator[Downloads]:
    """Inside, nothing reaches the network and pretrained weights that are not cached are left out."""
    with contextlib.ExitStack() as stack:
        downloads = Downloads(stack=stack)
        stack.enter_context(patched(socket, "getaddrinfo", _unreachable))
        stack.enter_context(patched(nn.Module, "load_state_dict", _tolerant(nn.Module.load_state_dict, downloads)))
        _patch_hub(downloads)
        downloads.patch()
        yield downloads


def _unreachable(*args: object, **kwargs: object) -> NoReturn:
    raise socket.gaierror("no network while linting")


def _tolerant(original: Callable[..., Any], downloads: Downloads) -> Callable[..., Any]:
    def load_state_dict(self: nn.Module, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(state_dict, NoWeights):
            downloads.empty.append(self)
            return nn.modules.module._IncompatibleKeys([], [])
        return original(self, state_dict, *args, **kwargs)

    return load_state_dict


def _patch_hub(downloads: Downloads) -> None:
    """torch.hub's downloader, wherever a library that is already imported has bound it."""
    original = torch.hub.load_state_dict_from_url

    def fetch(url: str, *args: Any, **kwargs: Any) -> Any:
        name = Path(urlparse(url).path).name
        if (Path(torch.hub.get_dir()) / "checkpoints" / name).exists():
            return original(url, *args, **kwargs)
        return downloads.note(name)

    for module in list(sys.modules.values()):
        for name in DOWNLOADERS:
            if module is not None and vars(module).get(name) is original:
                downloads.stack.enter_context(patched(module, name, fetch))


def _patch_timm(downloads: Downloads, module: Any) -> None:
    def load_pretrained(model: nn.Module, *args: object, **kwargs: object) -> None:
        downloads.note(type(model).__name__)
        downloads.empty.append(model)

    downloads.stack.enter_context(patched(module, "load_pretrained", load_pretrained))


def _patch_transformers(downloads: Downloads, module: Any) -> None:
    """`Model.from_pretrained(name)` that is not cached: the architecture of that name with initial weights."""
    downloads.stack.enter_context(
        _class_method(module.PreTrainedModel, downloads, lambda owner, name: owner(_config(owner, name)))
    )


def _patch_auto(downloads: Downloads, module: Any) -> None:
    downloads.stack.enter_context(
        _class_method(
            module._BaseAutoModelClass, downloads, lambda owner, name: owner.from_config(_config(owner, name))
        )
    )


def _patch_config(downloads: Downloads, module: Any) -> None:
    downloads.stack.enter_context(_class_method(module.AutoConfig, downloads, lambda owner, name: _config(owner, name)))


def _patch_configuration(downloads: Downloads, module: Any) -> None:
    downloads.stack.enter_context(_class_method(module.PretrainedConfig, downloads, lambda owner, name: owner()))


@contextlib.contextmanager
def _class_method(owner: Any, downloads: Downloads, instead: Callable[[Any, str], Any]) -> Iterator[None]:
    """`from_pretrained` of a class, with `instead` where what it wants is not on this machine."""
    original = owner.__dict__["from_pretrained"].__func__

    def from_pretrained(cls: Any, name: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return original(cls, name, *args, **kwargs)
        except OSError:
            downloads.note(str(name))
            made = instead(cls, str(name))
            downloads.empty += [made] if isinstance(made, nn.Module) else []
            return (made, {}) if kwargs.get("return_unused_kwargs") else made

    owner.from_pretrained = classmethod(from_pretrained)
    try:
        yield
    finally:
        owner.from_pretrained = classmethod(original)


def _config(owner: Any, name: str) -> Any:
    """The default configuration of a model class, or of the architecture that a checkpoint is named after."""
    if getattr(owner, "config_class", None) is not None:
        return owner.config_class()
    from transformers import CONFIG_MAPPING

    plain = re.sub(r"[-_.]", "", name.rsplit("/", 1)[-1].lower())
    kinds = [kind for kind in CONFIG_MAPPING if plain.startswith(re.sub(r"[-_]", "", kind))]
    if not kinds:
        raise OSError(f"{name} is not on this machine, and its architecture is not known by its name")
    return CONFIG_MAPPING[max(kinds, key=len)]()


PATCHES: dict[str, Callable[[Downloads, Any], None]] = {
    "timm.models._builder": _patch_timm,
    "transformers.modeling_utils": _patch_transformers,
    "transformers.models.auto.auto_factory": _patch_auto,
    "transformers.models.auto.configuration_auto": _patch_config,
    "transformers.configuration_utils": _patch_configuration,
}
