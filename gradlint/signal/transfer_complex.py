"""Complex numbers as pairs (Re, Im) along a last dimension, and their product with known ones: rotary positions.

The field of a complex z is that of the real tensor under it, x = view_as_real(z). Where both parts have the same
moments, E[x x′] is ½ Re E[z z̄′] for entries of one part and ½ Im E[z z′] for a real and an imaginary one: y = cz has

    E[y y′] = E[x x′]·Re(c c̄′) for one part,    E[x x′]·Re(c c′) for both,

each averaged over the entries of c that share the same axes: the second moments of the pair (Re c + Im c, Re c − Im c),
which is recorded of c (`gradlint.capture.fixed`). The adjoint multiplies by c̄, of which both are the same. As of any
factor, it is an average: that |c| falls with the position while a causal mask favours the first ones is not seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gradlint.signal.field import Cotangent, Field
from gradlint.signal.site import Contributions, Dependent, Flow, Site, Unanswered, entries, is_complex, shaped
from gradlint.signal.transfer_merge import independent_product
from gradlint.signal.transfer_pointwise import copy, unchanged
from gradlint.signal.transfer_shape import follow, permuted, viewed
from gradlint.signal.weights import field_of, stands_for_infinity


def unfollowed(site: Site) -> Flow:
    """What takes or gives complex numbers in any other way: their parts mix as no table says."""
    operands = [site.graph.values[value] for value in site.op.inputs]
    for operand in operands:
        if operand.requires_grad:
            site.known(operand.id)
    if not any(operand.id in site.fields or operand.requires_grad for operand in operands):
        raise Dependent("complex numbers that nothing is known of")
    raise Unanswered(f"no transfer function for {site.op.function or site.op.name} of complex numbers")


def reshape(site: Site) -> Flow:
    """view_as_complex and view_as_real, which are the same pairs; views of complex numbers, which keep them."""
    if site.op.function == "view_as_complex":
        value = site.id("input")
        x = site.known(value)
        return unchanged(value, x.collapse() if _uneven(x) else x)
    if site.op.function == "values":
        return unfollowed(site)
    return follow(site, [viewed(entries(site.graph.values[site.op.outputs[0]]))])


def permute(site: Site) -> Flow:
    """The dimensions of complex numbers in another order."""
    dims = site.op.attrs.get("dims")
    if not isinstance(dims, Sequence) or site.op.function == "channel_shuffle":
        return unfollowed(site)
    return follow(site, [permuted([*map(int, dims), len(dims)])])


def copied(site: Site) -> Flow:
    """The same complex numbers again."""
    values = (site.graph.values[value] for value in (*site.op.inputs[:1], site.op.outputs[0]))
    return copy(site) if all(map(is_complex, values)) else unfollowed(site)


def multiplied(site: Site) -> Flow:
    """Complex numbers times known ones."""
    if site.op.function != "mul" or len(site.op.inputs) != 2:
        return unfollowed(site)
    first, second = site.op.inputs
    for value, factor in ((first, second), (second, first)):
        c = known(site, factor)
        if c is not None and is_complex(site.graph.values[value]):
            return turned(value, factor, site.known(value), c)
    return unfollowed(site)


def known(site: Site, value: int) -> Field | None:
    """The field of (Re c + Im c, Re c − Im c) of complex numbers c that were there; None where they are not known."""
    fixed = site.graph.fixed.get(value)
    numbers = fixed.numbers if fixed is not None else site.graph.seen.get(value)
    if not is_complex(site.graph.values[value]) or numbers is None or stands_for_infinity(numbers):
        return None
    return shaped(field_of(numbers), entries(site.graph.values[value]))


def turned(value: int, factor: int, x: Field, c: Field) -> Flow:
    """z·c by the fields of z and c; samples of more energy than others have it still, whatever c turns them to."""
    product = independent_product(value, factor, x, c)
    found = product.outputs[0]
    assert found is not None

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        cotangent = cotangents[0]
        if cotangent is None:
            return {}
        even = Cotangent(cotangent.table.collapse(), lean=cotangent.lean) if _uneven(cotangent) else cotangent
        return {value: product.backward([even])[value]}

    return Flow((replace(found, sway=x.sway),), backward)


def _uneven(pairs: Field | Cotangent) -> bool:
    """Whether the table tells real and imaginary parts apart."""
    table = pairs.table
    return table.profile is not None and table.profile.axis in table.at(-1)
