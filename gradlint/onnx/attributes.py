"""A node's attributes as plain Python values, those that a function takes from its caller filled in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KINDS = {1: "f", 2: "i", 3: "s", 6: "floats", 7: "ints", 8: "strings", 5: "g", 10: "graphs"}


def attributes(proto: Any, given: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """(the node without references to its function's attributes, its attributes by name)."""
    if any(attribute.ref_attr_name for attribute in proto.attribute):
        proto = _filled(proto, given)
    return proto, {attribute.name: _value(attribute) for attribute in proto.attribute}


def _filled(proto: Any, given: Mapping[str, Any]) -> Any:
    import onnx

    copied = onnx.NodeProto()
    copied.CopyFrom(proto)
    del copied.attribute[:]
    for attribute in proto.attribute:
        if not attribute.ref_attr_name:
            copied.attribute.append(attribute)
        elif attribute.ref_attr_name in given:
            filled = onnx.AttributeProto()
            filled.CopyFrom(given[attribute.ref_attr_name])
            filled.name = attribute.name
            copied.attribute.append(filled)
    return copied


def _value(attribute: Any) -> Any:
    from onnx import numpy_helper

    if attribute.type == 4:
        return numpy_helper.to_array(attribute.t)
    value = getattr(attribute, KINDS.get(attribute.type, "s"))
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if attribute.type in (6, 7):
        return list(value)
    if attribute.type == 8:
        return [text.decode(errors="replace") for text in value]
    return value
