"""The inputs that each architecture is really trained on, as dtype and rank: what an inferred input must agree with."""

from __future__ import annotations

from build import detects, load

IDS, IMAGE, VIDEO, MATRIX, WAVE = "int64:2", "float32:4", "float32:5", "float32:3", "float32:2"
TWO_IMAGES = {f"images.{i}": MATRIX for i in range(2)} | {f"targets.{i}.boxes": WAVE for i in range(2)}


def each(names: str, **forms: str) -> dict[str, dict[str, str]]:
    """The same inputs for each of the names."""
    return dict.fromkeys(names.split(), forms)


TRANSFORMERS: dict[str, dict[str, str]] = {
    **each("bart bigbird_pegasus led longt5 marian", input_ids=IDS, decoder_input_ids=IDS),
    **each("prophetnet switch_transformers t5", input_ids=IDS, decoder_input_ids=IDS),
    **each("beit convnextv2 deit dinov2 dpt focalnet hiera levit mobilevit poolformer pvt_v2", pixel_values=IMAGE),
    **each("segformer swin swin2sr swinv2 vit vit_mae yolos", pixel_values=IMAGE),
    **each("clip clipseg blip git vilt", input_ids=IDS, pixel_values=IMAGE),
    **each("timesformer videomae", pixel_values=VIDEO),
    **each("wav2vec2 wavlm sew", input_values=WAVE),
    **each("whisper speech_to_text", input_features=MATRIX, decoder_input_ids=IDS),
    **each("audio-spectrogram-transformer encodec", input_values=MATRIX),
    **each("patchtst patchtsmixer", past_values=MATRIX),
    **each("layoutlm", input_ids=IDS, bbox="int64:3"),
    **each("layoutlmv3", input_ids=IDS, bbox="int64:3", pixel_values=IMAGE),
}
HEADS = {
    "ForSequenceClassification": "int64:1",
    "ForImageClassification": "int64:1",
    "LMHeadModel": IDS,
    "ForCausalLM": IDS,
    "ForConditionalGeneration": IDS,
    "ForMaskedLM": IDS,
}


def expected(name: str) -> dict[str, str]:
    """Argument path: dtype and rank. "first" is the first argument, whatever its name."""
    family, _, rest = name.partition("/")
    if family == "hand":
        return dict(load("hand").NETS[rest].inputs)
    if family == "tv":
        return _torchvision(rest)
    return _transformers(rest) if family == "hf" else {"first": IMAGE}


def _torchvision(name: str) -> dict[str, str]:
    if detects(name):
        return TWO_IMAGES
    if name.startswith("raft"):
        return {"image1": IMAGE, "image2": IMAGE}
    videos = ("mc3", "r3d", "r2plus1d", "s3d", "mvit", "swin3d")
    return {"first": VIDEO if name.startswith(videos) else IMAGE}


def _transformers(name: str) -> dict[str, str]:
    kind, _, head = name.partition(":")
    labels = [form for ending, form in HEADS.items() if head.endswith(ending)]
    return TRANSFORMERS.get(kind, {"input_ids": IDS}) | dict.fromkeys(["labels"] if labels else [], *labels)


def agrees(name: str, inputs: dict[str, str]) -> bool:
    """Whether every expected input is there with its dtype and rank; further optional inputs do not matter."""
    found = {**inputs, "first": next(iter(inputs.values()), "")}
    found |= {"0": found["first"]}
    return all(found.get(path) == form for path, form in expected(name).items())
