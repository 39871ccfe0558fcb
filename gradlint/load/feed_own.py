"""Example inputs that the model itself states: Lightning's example, timm's and transformers' configurations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from gradlint.load.feed_plan import Axis, Constant, Group, Guess, Node
from gradlint.load.infer_context import Context
from gradlint.load.infer_repair import Change


def own_plans(known: Context) -> Iterator[Change]:
    """Plans that the model states, best first."""
    for source in (_example_array, _pretrained_cfg, _transformers):
        yield from source(known)


def _example_array(known: Context) -> Iterator[Change]:
    """PyTorch Lightning: a tensor, a tuple of positional arguments, or a dict of keyword arguments."""
    example = getattr(known.model, "example_input_array", None)
    if example is None:
        return
    keyed = isinstance(example, dict)
    values = example if isinstance(example, dict) else _numbered(known, example)
    arguments = {name: as_node(value) for name, value in values.items()}
    yield 0.0, known.plan(arguments, frozenset(arguments) if keyed else frozenset())


def _numbered(known: Context, example: object) -> dict[str, object]:
    items = example if isinstance(example, (tuple, list)) else (example,)
    names = [a.name for a in known.arguments if not a.keyword and not a.several]
    return {names[i] if i < len(names) else str(i): item for i, item in enumerate(items)}


def as_node(value: object) -> Node:
    """A plan node for a value that was given: tensors keep their shape and dtype, floats are drawn afresh."""
    if isinstance(value, Tensor) and value.is_floating_point():
        return Guess("given", tuple(value.shape), str(value.dtype).removeprefix("torch."))
    if isinstance(value, dict):
        return Group("dict", tuple((str(key), as_node(item)) for key, item in value.items()))
    if isinstance(value, (list, tuple)):
        members = tuple((str(i), as_node(item)) for i, item in enumerate(value))
        return Group("list" if isinstance(value, list) else "tuple", members)
    return Constant(value)


def _pretrained_cfg(known: Context) -> Iterator[Change]:
    """timm: `pretrained_cfg["input_size"]`, (channels, height, width)."""
    config = getattr(known.model, "pretrained_cfg", None) or getattr(known.model, "default_cfg", None)
    size = config.get("input_size") if isinstance(config, dict) else None
    if not size or not known.arguments:
        return
    name = known.arguments[0].name
    channels = getattr(known.model, "in_chans", None) or known.channels if size[0] != known.channels else size[0]
    yield 0.0, known.plan({name: Guess("image", ("B", channels, *size[1:]))})


# ---- transformers

SEQUENCE = 16


def _transformers(known: Context) -> Iterator[Change]:
    """By `config` and `main_input_name`; with labels first, so that the model computes its own loss."""
    model, config = known.model, getattr(known.model, "config", None)
    if config is None or not hasattr(model, "main_input_name") or not hasattr(config, "to_dict"):
        return
    accepted = frozenset(a.name for a in known.arguments)
    known = replace(known, sizes={**known.sizes, "B": 2, "T": _steps(config), "U": 8})
    for cost, arguments in _inputs(model, config, accepted):
        labels = _labels(model, config, arguments) if "labels" in accepted else []
        for rank, label in enumerate(labels):
            yield cost + 0.1 * rank, known.plan({**arguments, "labels": label}, frozenset({*arguments, "labels"}))
        yield cost + 0.3, known.plan(arguments, frozenset(arguments))


def _steps(config: Any) -> int:
    """Ids a sequence: 16, or as many as the position table has."""
    longest = getattr(config, "max_position_embeddings", None) or SEQUENCE
    return min(SEQUENCE, longest) if isinstance(longest, int) and longest > 0 else SEQUENCE


def _inputs(model: nn.Module, config: Any, accepted: frozenset[str]) -> Iterator[tuple[float, dict[str, Node]]]:
    main = str(getattr(model, "main_input_name", "input_ids"))
    for rank, node in enumerate(MAIN.get(main, _ids)(config)):
        base: dict[str, Node] = {main: node}
        extras = _extras(model, config, accepted, main)
        if extras:
            yield 0.4 * rank, {**base, **extras}
        yield 0.4 * rank + (0.2 if extras else 0.0), base


def _extras(model: nn.Module, config: Any, accepted: frozenset[str], main: str) -> dict[str, Node]:
    """What the model needs beside its main input: the decoder's ids, boxes, the other modality."""
    extras: dict[str, Node] = {}
    if "decoder_input_ids" in accepted and getattr(config, "is_encoder_decoder", False):
        extras["decoder_input_ids"] = Guess("ids", ("B", "U"), "int64")
    if "bbox" in accepted:
        extras["bbox"] = Guess("boxes", ("B", "T", 4), "int64")
    if main == "input_ids" and "pixel_values" in accepted:
        extras["pixel_values"] = next(iter(_pixels(config)))
    if main == "pixel_values" and "input_ids" in accepted:
        extras["input_ids"] = Guess("ids", ("B", "T"), "int64")
    return extras


def _ids(config: Any) -> list[Node]:
    return [Guess("ids", ("B", "T"), "int64")]


def _pixels(config: Any) -> list[Node]:
    vision = getattr(config, "vision_config", None) or config
    side = _first(vision, "image_size", "input_size", "img_size") or 224
    axes: tuple[Axis, ...] = tuple(side)[-2:] if isinstance(side, (tuple, list)) else (side, side)
    channels = _first(vision, "num_channels", "in_channels", "in_chans") or 3
    frames = _first(vision, "num_frames", "frames_per_clip")
    still = Guess("image", ("B", channels, *axes))
    return [Guess("video", ("B", frames, channels, *axes)), still] if isinstance(frames, int) else [still]


def _features(config: Any) -> list[Node]:
    """Spectrograms: mel bins × frames (Whisper), frames × features (Speech2Text)."""
    bins = _first(config, "num_mel_bins", "input_feat_per_channel", "feature_size", "input_dim") or 80
    frames = 2 * (_first(config, "max_source_positions") or 50)
    return [Guess("map", ("B", bins, frames)), Guess("map", ("B", min(frames, 100), bins))]


def _waves(config: Any) -> list[Node]:
    """Waveforms (Wav2Vec2), with a channel axis (EnCodec), or a spectrogram (AST)."""
    wave, channels = Guess("signal", ("B", 4000)), _first(config, "audio_channels")
    bins = _first(config, "num_mel_bins")
    if bins:
        return [Guess("map", ("B", _first(config, "max_length") or 1024, bins)), wave]
    return [Guess("signal", ("B", channels, 4000)), wave] if channels else [wave, Guess("signal", ("B", 1, 4000))]


def _past(config: Any) -> list[Node]:
    steps = _first(config, "context_length") or 32
    return [
        Guess("map", ("B", steps, _first(config, "num_input_channels", "input_size") or 1)),
        Guess("map", ("B", steps)),
    ]


def _first(config: Any, *names: str) -> Any:
    """The first attribute that is there and set."""
    return next((v for v in (getattr(config, name, None) for name in names) if v), None)


MAIN: dict[str, Callable[[Any], list[Node]]] = {
    "input_ids": _ids,
    "pixel_values": _pixels,
    "pixel_values_videos": _pixels,
    "input_features": _features,
    "input_values": _waves,
    "past_values": _past,
}


def _labels(model: nn.Module, config: Any, arguments: dict[str, Node]) -> list[Node]:
    """Labels by the head's name: one class a sample, one a step, or the ids that a language model predicts."""
    name = type(model).__name__
    classes = getattr(config, "num_labels", None) or 2
    perstep = next((n for n in arguments.values() if isinstance(n, Guess) and n.role == "ids"), None)
    decoder = arguments.get("decoder_input_ids")
    target = decoder if isinstance(decoder, Guess) else perstep
    whole = [replace(target, role="labels")] if target is not None else []
    one = Guess("labels", ("B",), "int64")
    if any(word in name for word in ("SequenceClassification", "ImageClassification", "MultipleChoice")):
        return [one] if classes > 1 else [Guess("labels", ("B",))]
    if any(
        word in name
        for word in ("CausalLM", "LMHead", "MaskedLM", "ConditionalGeneration", "TokenClassification", "ForPreTraining")
    ):
        return [*whole, one]
    return [one, *whole]
