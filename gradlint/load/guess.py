"""Sensible values for constructor arguments that nobody states, by the parameter's name, its use and its annotation."""

from __future__ import annotations

import re

from gradlint.source.usage import Use

# Parameter name (lower case, whole) → value. The first pattern that matches wins.
BY_NAME: tuple[tuple[str, object], ...] = (
    (r"(\w+_)?pad(ding)?_?(idx|index|id|token(_id)?)", 0),
    (r"(mask|masking|keep|drop|noise|prune|sampling)\w*ratio", 0.5),
    (r"\w*(dropout|drop)\w*|p|pdrop|dp|dp_\w+|\w+_(rate|prob|probability)|rate|prob", 0.1),
    (
        r"(num|n|nb|out|output|number_of)?_?(class|classes|labels?|categories|cls)(_num|_count|_size)?|ncls|nclass|nc_out",
        10,
    ),
    (
        r"(in|input|img|image|num|n)_?(channels?|chans?|ch|c|planes)|channels?(_in|_img)?|c_?in|chans|nc|in_c|inp|colou?rs",
        3,
    ),
    (r"out_?(channels?|chans?|ch|c|planes)|channels?_out|c_?out|oup", 16),
    (r"(num|n|nb)?_?(actions?|acts?)(_dim|_size|_space|_num)?|a_dim", 4),
    (
        r"(obs|observation|state|s|ob|num|n)_?(dim|size|states?|obs|observations?|inputs?|features?|input)|obs|n_in|d_in|in_?(dim|size|features?|feats?)",
        16,
    ),
    (r"(in|input|feature|num|n)_?(dims?|size|features?|feats?|nodes?|inputs?|variables?|d)|features?|inputs?", 16),
    (
        r"(out|output|target|num|n)_?(dims?|size|features?|feats?|nodes?|outputs?|targets?|out|d)|outputs?|d_out|n_out",
        10,
    ),
    (
        r"((n|num)_)?(src|tgt|source|target|trg|enc|dec|n|num|input|output)?_?(voc|vocab|vocabulary|words?|tokens?|ntokens?|embeddings|items|users|entities|nodes)"
        r"(_size|_len|_count|_dim)?|dict_size|ntoken|vocabsize|voc_size",
        1000,
    ),
    (r"(num|n|nb)?_?(attn|attention)?_?heads?|nhead|heads?_num", 4),
    (r"(latent|z|code|noise|bottleneck)_?(dims?|size|channels?|features?)?|nz|zdim", 32),
    (
        r"(d|dim|n|ffn?|mlp|feed_?forward|intermediate|inner)_?(ff|ffn|feed_?forward|feedforward|mlp|inner|hid|hidden|size|dim)|d_ff|ff|pf_dim",
        128,
    ),
    (
        r"\w*(hidden|embed|emb|model|width|units|dim|filters?|hid|embd|planes|ngf|ndf|neurons|growth_rate|base)\w*|d|h|nf|c|width|dims?|features_d|features_g",
        64,
    ),
    (
        r"(max_?)?(seq|sequence|sentence|context|src|tgt|block|window|time|input|text)?_?(len|length|steps|size_t|timesteps|window|lookback|ctx)"
        r"|block_size|context_?(size|length|window)?|window(_size)?|n_(\w+_)?ctx|max_position\w*|max_(seq\w*|len\w*)|seqlen|horizon|lookback|length|t",
        64,
    ),
    (r"patch(_?size)?|p_size", 4),
    (
        r"(img|image|input|spatial)_?(size|resolution|dim|res|side|height|width)|resolution|side|height|width|size|h|w",
        32,
    ),
    (r"(img|image|input|in|data|x)_?shape|shape", (3, 32, 32)),
    (
        r"\w*(depth|layers?|blocks?|levels?|stages?|stacks?|repeats?|nums?|cells?|experts?|scales?|steps?)|(\w+_)?[nkl]",
        2,
    ),
    (r"kernel(_?size)?|ks|k_size|filter_size", 3),
    (
        r"stride|padding|dilation|groups|expansion|expand_ratio|ratio|scale|factor|multiplier|mult|width_mult\w*|cardinality",
        1,
    ),
    (r"reduction(_ratio)?|r|rank", 4),
    (r"\w+_channels?", 64),
    (r"eps(ilon)?", 1e-5),
    (r"lr|learning_rate", 1e-3),
    (r"(negative_)?slope|alpha|leak", 0.2),
    (
        r"momentum|beta|gamma|temperature|tau|sigma|std|lambd?a?|max_action|action_(bound|scale|range)|bound|weight\w*",
        1.0,
    ),
    (r"batch_?(size)?|bs|b", 8),
    (r"pretrained|bidirectional|use_\w+|return_\w+|with_\w+|is_\w+|has_\w+|debug|verbose|causal|mask(ed)?", False),
    (r"bias|batch_first|batch_?norm|bn|residual|affine|training|normalize", True),
    (r"device", "cpu"),
    (r"mode|type|kind|name|variant|arch", ""),
)

# The same, where the constructor reads the parameter as a sequence.
SEQUENCES: tuple[tuple[str, tuple[object, ...]], ...] = (
    (r"(img|image|input|in|data|x)_?(shape|dims?)", (3, 32, 32)),
    (r"(img|image|input|in|patch|window)?_?(size|resolution)", (32, 32)),
    (r"(\w+_)?(layers|blocks|depths?|repeats?|stages)", (2, 2, 2, 2)),
    (r"(\w+_)?kernels?(_?sizes?)?|ks", (3, 5, 7)),  # odd, so that padding can keep the size
    (r"filter_sizes", (3, 4, 5)),
    (
        r"(layer_?)?(sizes|dims|layers_sizes|units|widths|shape|architecture|arch|neurons|nodes|layers)",
        (16, 64, 64, 10),
    ),
    (r"(\w+_)?(strides?|dilations?|dilation_sizes)", (1, 2, 2, 2)),
    (r"(up|down)_?(sample|sampling|scale)_?(rates?|scales?|ratios?|factors?)", (2, 2, 2)),
    (r"\w*dropouts?", (0.1, 0.1, 0.1, 0.1)),
    (r"\w*(heads)\w*", (4, 4, 4, 4)),
)

BY_ANNOTATION: tuple[tuple[str, object], ...] = (
    (r"(Optional\[)?(int|SupportsInt)\]?|int \| None", 16),
    (r"(Optional\[)?float\]?|float \| None", 0.5),
    (r"(Optional\[)?bool\]?|bool \| None", False),
    (r"(Optional\[)?str\]?|str \| None", ""),
    (r"(Optional\[)?(typing\.)?(list|List|Sequence|Iterable|tuple|Tuple)\[?(float).*", (0.1, 0.1)),
    (r"(Optional\[)?(typing\.)?(list|List|Sequence|Iterable|tuple|Tuple)(\[.*)?", (64, 64)),
)


# What is not at hand, where the constructor can do without it.
FETCHED = r"\w*(pre_?train\w*|weights|checkpoint|ckpt|state_dict|path|file)"


def named_size(name: str) -> int | None:
    """The usual number for a name that says what it counts; None for any other name."""
    value = _first(BY_NAME, name.strip("_").lower(), None)
    return value if type(value) is int and value > 0 else None


def guess(name: str, use: Use | None = None, annotation: str = "", entry: Use | None = None) -> object:
    """A plausible number, text or tuple for a parameter; `entry` says how the entries of a sequence are used."""
    key = name.strip("_").lower()
    if use is not None and use.kind in ("text", "text key", "choice", "usual") and use.example is not None:
        return use.example
    if use is not None and use.kind == "optional" and re.fullmatch(FETCHED, key):
        return None
    if use is not None and use.kind == "annotated" and not annotation:
        annotation = str(use.example)
    if use is not None and use.kind == "sequence":
        values = _sized(_first(SEQUENCES, key, (64, 64)), use.length)
        return values if entry is None else tuple(_entry(value, entry) for value in values)
    annotated = _first(BY_ANNOTATION, annotation, None)
    named = _first(BY_NAME, key, None)
    if named is None and use is not None and use.kind == "named":
        named = _first(BY_NAME, str(use.example).strip("_").lower(), None)
    if isinstance(annotated, tuple):
        return _first(SEQUENCES, key, annotated)
    if named is None and annotated is None and use is not None and use.kind in ("text", "number"):
        return use.example if use.kind == "number" else ""  # a number is the default that it has elsewhere
    if named is None or (annotated is not None and not _compatible(named, annotated)):
        return 16 if annotated is None else annotated
    return named


# Depths that nets assert or look up: wide ResNets take 6 n + 4, ResNets for small images 6 n + 2, others a usual one.
DEPTHS = (10, 20, 18, 50, 11, 1, 8)


def alternatives(name: str, value: object) -> list[object]:
    """Other values worth trying when the constructor rejects a guess, the likeliest first."""
    key = name.strip("_").lower()
    if isinstance(value, tuple):
        return [value[0]] if value else [16]
    if not isinstance(value, int) or isinstance(value, bool):
        return []
    if re.fullmatch(r"(img|image|input|spatial)_?(size|resolution|side|height|width)|resolution|side", key):
        return [224, (value, value), 256, 64, 28]
    if re.fullmatch(r"(\w*_)?(depth|layers)", key):
        return [_first(SEQUENCES, key, (value, value)), *DEPTHS]
    return [_first(SEQUENCES, key, (value, value)), 1, 8, 32, 128]


def _compatible(value: object, annotated: object) -> bool:
    if isinstance(value, bool) or isinstance(annotated, bool):
        return isinstance(value, bool) and isinstance(annotated, bool)
    if isinstance(annotated, int):
        return isinstance(value, int)
    return isinstance(value, int | float) if isinstance(annotated, float) else isinstance(value, type(annotated))


def _first(table: tuple[tuple[str, object], ...], key: str, default: object) -> object:
    return next((value for pattern, value in table if re.fullmatch(pattern, key)), default)


def _entry(value: object, use: Use) -> object:
    """One entry of a sequence, which may be a sequence itself."""
    if use.kind == "usual" and isinstance(use.example, tuple | list):
        return tuple(use.example)
    return _sized(value, use.length or 1) if use.kind == "sequence" else value


def _sized(value: object, length: int) -> tuple[object, ...]:
    values = value if isinstance(value, tuple) else (value,)
    return values if not length else (values * length)[:length]
