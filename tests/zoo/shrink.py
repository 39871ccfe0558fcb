"""Transformers models from configurations shrunk to a few thousand weights, so that a forward takes milliseconds."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

WIDTH, HEADS, LAYERS, VOCABULARY, POSITIONS = 32, 4, 2, 128, 64


def every(names: str, value: Any) -> dict[str, Any]:
    """The value for each of the names."""
    return dict.fromkeys(names.split(), value)


# attribute of a configuration: its small value, wherever the configuration has a number there
SMALL: dict[str, Any] = {
    **every("hidden_size d_model n_embd dim embed_dim embedding_size emb_dim lru_width", WIDTH),
    **every("attention_hidden_size word_embed_proj_dim", WIDTH),
    **every("intermediate_size ffn_dim encoder_ffn_dim decoder_ffn_dim d_ff n_inner d_inner dff", 64),
    **every("hidden_dim ffn_hidden_size", 64),
    **every("num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers", LAYERS),
    **every("num_encoder_layers num_decoder_layers", LAYERS),
    **every("num_attention_heads n_head n_heads num_heads encoder_attention_heads", HEADS),
    **every("decoder_attention_heads num_encoder_attention_heads num_decoder_attention_heads", HEADS),
    **every("num_key_value_heads kv_n_heads", 2),
    **every("d_kv d_head head_dim qk_rope_head_dim qk_nope_head_dim v_head_dim", 8),
    **every("q_lora_rank kv_lora_rank projection_dim", 16),
    **every("max_position_embeddings n_positions n_ctx", POSITIONS),
    **every("num_experts num_local_experts n_routed_experts", 4),
    **every("moe_intermediate_size shared_expert_intermediate_size", WIDTH),
    **every("n_group topk_group first_k_dense_replace bos_token_id decoder_start_token_id", 1),
    "num_experts_per_tok": 2,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "sliding_window": 8,
    "vocab_size": VOCABULARY,
    "image_size": 32,
    "patch_size": 8,
}

STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
AUDIO = {
    "conv_dim": [16, 16, 16],
    "conv_stride": [5, 4, 4],
    "conv_kernel": [10, 4, 4],
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "num_feat_extract_layers": 3,
}
WINDOWS = {
    "embed_dim": 16,
    "depths": [1, 1],
    "num_heads": [2, 2],
    "window_size": 2,
    "patch_size": 4,
    "hidden_size": None,
}
PYRAMID = {"patch_size": None, "hidden_size": None, "num_attention_heads": [1, 1, 2, 2], **STAGES}

# what a kind of model needs beside or instead of SMALL, because its sizes hang together; None keeps its default
SPECIAL: dict[str, dict[str, Any]] = {
    "albert": {"embedding_size": 16},
    "canine": {"num_hash_buckets": 64, "vocab_size": None},
    "mobilebert": {"embedding_size": 16, "intra_bottleneck_size": 16, "true_hidden_size": 16},
    "rembert": {"input_embedding_size": 16, "output_embedding_size": 32},
    "layoutlm": {"max_2d_position_embeddings": 1024},
    "layoutlmv3": {"input_size": 32, "image_size": None, "coordinate_size": 5, "shape_size": 6},
    "longformer": {"attention_window": 4},
    "big_bird": {"attention_type": "original_full", "block_size": 4, "num_random_blocks": 1},
    "bigbird_pegasus": {"attention_type": "original_full", "block_size": 4},
    "nystromformer": {"num_landmarks": 4, "segment_means_seq_len": 16},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 8},
    "gptj": {"rotary_dim": 4},
    "codegen": {"rotary_dim": 4},
    "modernbert": {"global_attn_every_n_layers": 2, "local_attention": 8},
    "falcon_mamba": {"state_size": 4, "time_step_rank": 4},
    "mamba2": {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 2, "chunk_size": 8},
    "jamba": {"mamba_d_state": 4, "mamba_dt_rank": 4, "attn_layer_period": 2, "attn_layer_offset": 1},
    "recurrent_gemma": {
        "attention_window_size": 8,
        "num_hidden_layers": 3,
        "block_types": ["recurrent", "recurrent", "attention"],
    },
    "deepseek_v3": {"num_key_value_heads": HEADS},
    "phi3": {"original_max_position_embeddings": POSITIONS},
    "lfm2": {"block_multiple_of": 8, "layer_types": ["conv", "full_attention"]},
    "prophetnet": {"num_encoder_layers": 1, "num_decoder_layers": 1, "num_buckets": 8, "relative_max_distance": 16},
    "longt5": {"local_radius": 3},
    "switch_transformers": {"num_experts": 2, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1},
    "led": {"attention_window": [4, 4], "max_encoder_position_embeddings": 64, "max_decoder_position_embeddings": 64},
    "convnextv2": {**STAGES, "patch_size": None},
    "swin": WINDOWS,
    "swinv2": WINDOWS,
    "swin2sr": {**WINDOWS, "window_size": 4, "patch_size": 1, "image_size": 16},
    "segformer": {**PYRAMID, "decoder_hidden_size": 16},
    "pvt_v2": {**PYRAMID, "hidden_sizes": [16, 16, 32, 32], "image_size": 64},
    "poolformer": {**STAGES, "patch_size": None, "image_size": 64},
    "levit": {
        "hidden_sizes": [16, 24, 32],
        "num_attention_heads": [1, 2, 2],
        "depths": [1, 1, 1],
        "key_dim": [8, 8, 8],
        "patch_size": None,
        "image_size": 64,
    },
    "mobilevit": {
        "hidden_sizes": [16, 16, 24],
        "neck_hidden_sizes": [8, 8, 16, 16, 24, 24, 32],
        "patch_size": 2,
        "image_size": 64,
    },
    "focalnet": {
        "embed_dim": 16,
        "depths": [1, 1],
        "focal_levels": [2, 2],
        "focal_windows": [3, 3],
        "hidden_sizes": [16, 32],
        "patch_size": 4,
    },
    "hiera": {
        "embed_dim": 8,
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 1, 1, 1],
        "image_size": [32, 32],
        "patch_size": None,
        "hidden_size": None,
    },
    "vit_mae": {
        "decoder_hidden_size": 32,
        "decoder_num_hidden_layers": 1,
        "decoder_num_attention_heads": 4,
        "decoder_intermediate_size": 64,
    },
    "yolos": {"num_detection_tokens": 4, "image_size": [32, 32]},
    "dpt": {
        "backbone_out_indices": [0, 1, 1, 1],
        "neck_hidden_sizes": [8, 8, 16, 16],
        "fusion_hidden_size": 16,
        "is_hybrid": False,
    },
    **dict.fromkeys(("wav2vec2", "wavlm"), AUDIO),
    "sew": {**AUDIO, "squeeze_factor": 2},
    "whisper": {"max_source_positions": 50, "max_target_positions": 32, "num_mel_bins": 16},
    "audio-spectrogram-transformer": {
        "num_mel_bins": 16,
        "max_length": 32,
        "patch_size": 4,
        "frequency_stride": 4,
        "time_stride": 4,
    },
    "speech_to_text": {
        "max_source_positions": 64,
        "max_target_positions": 32,
        "input_feat_per_channel": 16,
        "conv_channels": 32,
    },
    "patchtst": {
        "context_length": 32,
        "num_input_channels": 3,
        "patch_length": 8,
        "patch_stride": 8,
        "prediction_length": 8,
    },
    "patchtsmixer": {
        "context_length": 32,
        "num_input_channels": 3,
        "patch_length": 8,
        "patch_stride": 8,
        "prediction_length": 8,
    },
    "timesformer": {"num_frames": 2},
    "videomae": {
        "num_frames": 4,
        "decoder_hidden_size": 32,
        "decoder_num_hidden_layers": 1,
        "decoder_num_attention_heads": 4,
        "decoder_intermediate_size": 64,
    },
    "esm": {"mask_token_id": 3, "vocab_size": 33, "pad_token_id": 1},
}

PARTS = ("text_config", "vision_config", "audio_config")


def build(kind: str, head: str = "") -> nn.Module:
    """The model of this `model_type` (with a head class, when named) on its shrunk configuration."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config_class = CONFIG_MAPPING[kind]
    config = config_class(**small(config_class, kind))
    return (
        getattr(transformers, head)(config) if head else transformers.AutoModel.from_config(config, dtype=torch.float32)
    )


def small(config_class: Any, kind: str) -> dict[str, Any]:
    """The arguments of a small configuration: SMALL where the default is a number, then SPECIAL."""
    default = config_class()
    stated = {k: v for k, v in vars(default).items() if isinstance(v, int) and not isinstance(v, bool)}
    special = SPECIAL.get(kind, {})
    arguments = {k: v for k, v in SMALL.items() if k in stated and k not in special}
    arguments |= {k: v for k, v in special.items() if v is not None}
    for part in PARTS:
        inner = getattr(default, part, None)
        if inner is not None and hasattr(inner, "to_dict") and part in vars(default):
            arguments[part] = small(type(inner), getattr(inner, "model_type", ""))
    return arguments
