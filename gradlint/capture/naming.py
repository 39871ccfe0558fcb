"""Paths of the modules, parameters and buffers of a model, by identity; unregistered ones included."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from gradlint.capture.sharded import class_of, gathered_parameters

_COMPILED = "_orig_mod"  # torch.compile wraps a module in another one and calls it this


def clean(path: str) -> str:
    """The path as the user wrote it, without the wrapper that torch.compile adds."""
    if _COMPILED not in path:
        return path
    return ".".join(part for part in path.split(".") if part != _COMPILED)


class Names:
    """Every name of every module and tensor of a model.

    `modules` maps a module's id to all its paths, `tensors` a parameter's or buffer's id to all of its.
    Modules that the model only holds in a plain list, tuple or dict get a path such as "blocks[0]" and are in
    `unregistered`; modules met during the run that no path leads to are called "?Linear" (see `adopt`).
    """

    def __init__(self, model: nn.Module) -> None:
        self.modules: dict[int, list[str]] = {}
        self.tensors: dict[int, list[str]] = {}
        self.params: dict[str, nn.Parameter] = {}
        self.buffers: dict[str, torch.Tensor] = {}
        self.attributes: dict[int, str] = {}
        self.tree: dict[str, nn.Module] = {}
        self.unregistered: set[str] = set()
        self._owners: list[torch.Tensor] = []
        self._register(model, "")
        for path, param in gathered_parameters(model):
            self.tensors.setdefault(id(param), [clean(path)])
            self._owners.append(param)
        for path, module in list(self.tree.items()):
            self._scan(path, module)

    def _register(self, root: nn.Module, prefix: str) -> None:
        for path, module in root.named_modules(prefix=prefix, remove_duplicate=False):
            self._add_module(clean(path), module)
        for path, param in root.named_parameters(prefix=prefix, remove_duplicate=False):
            if self._add_tensor(clean(path), param):
                self.params[clean(path)] = param
        for path, buffer in root.named_buffers(prefix=prefix, remove_duplicate=False):
            if self._add_tensor(clean(path), buffer):
                self.buffers[clean(path)] = buffer

    def _add_module(self, path: str, module: nn.Module) -> None:
        paths = self.modules.setdefault(id(module), [])
        if path not in paths:
            paths.append(path)
        if len(paths) == 1 or path == paths[0]:
            self.tree[path] = module

    def _add_tensor(self, path: str, tensor: torch.Tensor) -> bool:
        paths = self.tensors.setdefault(id(tensor), [])
        if path not in paths:
            paths.append(path)
        return len(paths) == 1

    def _scan(self, path: str, module: nn.Module) -> None:
        """Find the modules and tensors that the module holds without having registered them."""
        for name, value in list(vars(module).items()):
            if name in _MODULE_STATE or type(value) in _PLAIN:
                continue
            here = f"{path}.{name}" if path else name
            for place, found in _held(value, here, 0):
                if isinstance(found, nn.Module):
                    self.adopt(found, place)
                elif id(found) not in self.tensors:
                    self.attributes.setdefault(id(found), place)
                    self._owners.append(found)

    def adopt(self, module: nn.Module, path: str = "") -> str:
        """Give an unregistered module a path, and its children and parameters theirs; a known one keeps what it has."""
        known = self.modules.get(id(module))
        if known is not None:
            return known[0]
        path = path or self._fresh("?" + class_of(module).__name__)
        before = set(self.tree)
        self._register(module, path)
        self.unregistered |= set(self.tree) - before
        for place in set(self.tree) - before:
            self._scan(place, self.tree[place])
        return path

    def _fresh(self, path: str) -> str:
        count, fresh = 1, path
        while fresh in self.tree:
            count, fresh = count + 1, f"{path}_{count}"
        return fresh

    def path(self, module: nn.Module, under: str = "") -> str:
        """The path of a module that is called from the module `under`; the alias that lies below it is preferred."""
        paths = self.modules.get(id(module))
        if paths is None:
            return self.adopt(module)
        if len(paths) == 1 or not under:
            return paths[0]
        return next((path for path in paths if path.startswith(under + ".")), paths[0])


_MODULE_STATE = frozenset(vars(nn.Module()))
_PLAIN = frozenset({int, float, str, bool, type(None)})
_DEPTH, _LENGTH = 3, 4096  # how deep, and how long, plain containers are looked through


def _held(value: object, here: str, depth: int) -> Iterator[tuple[str, nn.Module | torch.Tensor]]:
    """The modules and tensors in an attribute, in lists, tuples and dicts too, with the path to each."""
    if isinstance(value, (nn.Module, torch.Tensor)):
        yield here, value
    elif depth < _DEPTH and isinstance(value, (list, tuple)) and len(value) <= _LENGTH:
        for position, item in enumerate(value):
            if type(item) not in _PLAIN:
                yield from _held(item, f"{here}[{position}]", depth + 1)
    elif depth < _DEPTH and isinstance(value, dict) and len(value) <= _LENGTH:
        for key, item in value.items():
            if type(item) not in _PLAIN:
                yield from _held(item, f"{here}[{key!r}]", depth + 1)
