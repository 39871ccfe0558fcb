"""The rows of the vocabulary for what layers are made of: activations, products with weights, norms, pools, losses."""

from __future__ import annotations

from gradlint.capture import attributes as at
from gradlint.capture.row import Row

_CELL = "input hx weight_ih_l0 weight_hh_l0 bias_ih_l0 bias_hh_l0"
_REDUCE = "input dim keepdim"
_LOSS = "input target weight size_average"

_MAX = "input kernel_size stride padding dilation ceil_mode return_indices"
_AVG = "input kernel_size stride padding ceil_mode count_include_pad divisor_override"

ROWS = (
    # activations
    Row("activation", "relu tanh selu hardswish hardsigmoid mish softsign tanhshrink sigmoid special_expit=sigmoid"),
    Row("activation", "expit=sigmoid silu swish=silu logsigmoid log_sigmoid=logsigmoid log_expit=logsigmoid"),
    Row("activation", "log_sigmoid_forward=logsigmoid"),
    Row("activation", "relu6", extract=lambda call: {"lower": 0.0, "upper": 6.0}),
    Row("activation", "leaky_relu", "input negative_slope", at.renamed(slope=("negative_slope", 0.01))),
    Row("activation", "elu", "input alpha", at.keep(alpha=1.0)),
    Row("activation", "celu", "input alpha", at.keep(alpha=1.0)),
    Row("activation", "gelu", "input", at.keep(approximate="none")),
    Row("activation", "softplus", "input beta threshold", at.keep(beta=1.0, threshold=20.0)),
    Row("activation", "hardtanh", "input min_val max_val", at.renamed(lower=("min_val", -1.0), upper=("max_val", 1.0))),
    Row("activation", "threshold _threshold=threshold", "input threshold value", at.keep(threshold=0.0, value=0.0)),
    Row("activation", "rrelu", "input lower upper training", at.keep(lower=1 / 8, upper=1 / 3, training=False)),
    Row("activation", "prelu _prelu_kernel=prelu", "input weight"),
    Row("activation", "glu", "input dim", at.along(default=-1)),
    Row("activation", "hardshrink softshrink", "input lambd", at.keep(lambd=0.5)),
    Row("softmax", "softmax log_softmax softmin special_softmax=softmax", "input dim", at.along(default=-1)),
    Row("softmax", "_softmax=softmax _log_softmax=log_softmax", "input dim", at.along(default=-1)),
    Row("softmax", "gumbel_softmax", "logits tau hard eps dim", at.keep(tau=1.0, hard=False, dim=-1)),
    # products with weights
    Row("linear", "linear", "input weight bias"),
    Row("linear", "bilinear", "input1 input2 weight bias"),
    Row("linear", "addmm", "bias input other", at.addmm),
    Row("matmul", "addmv=addmm addbmm=addmm baddbmm", "bias batch1 batch2", at.addmm),
    Row("matmul", "matmul __matmul__=matmul mm=matmul bmm=matmul mv=matmul dot=matmul vdot=matmul", "input other"),
    Row("matmul", "inner=matmul outer ger=outer linalg_matmul=matmul kron tensordot chain_matmul", "input other"),
    Row("matmul", "linalg.multi_dot=multi_dot multi_dot", "tensors"),
    Row("matmul", "spmm=matmul smm=matmul hspmm=matmul dsmm=matmul vecdot=matmul linalg_vecdot=matmul", "input other"),
    Row("matmul", "addr=outer", "bias vec vec2", at.addmm),
    Row("matmul", "sspaddmm=addmm", "bias input other", at.addmm),
    Row("matmul", "__rmatmul__=matmul", "other input"),
    Row("matmul", "einsum", "equation *operands", at.keep("equation")),
    Row("matmul", "_grouped_mm=grouped_mm grouped_mm scaled_mm", "input other"),
    Row("conv", "conv1d conv2d conv3d", "input weight bias stride padding dilation groups", at.conv, "conv"),
    Row(
        "conv",
        "conv_transpose1d conv_transpose2d conv_transpose3d",
        "input weight bias stride padding output_padding groups dilation",
        at.conv,
        "conv",
    ),
    Row(
        "conv",
        "convolution _convolution",
        "input weight bias stride padding dilation transposed output_padding groups",
        at.conv,
        "conv",
    ),
    Row(
        "embedding", "embedding", "input weight padding_idx max_norm norm_type scale_grad_by_freq sparse", at.embedding
    ),
    Row("embedding", "torch.embedding aten.embedding", "weight input padding_idx scale_grad_by_freq", at.embedding),
    Row(
        "embedding",
        "embedding_bag",
        "input weight offsets max_norm norm_type scale_grad_by_freq mode sparse per_sample_weights",
        at.embedding,
    ),
    Row(
        "attention",
        "scaled_dot_product_attention",
        "query key value attn_mask dropout_p is_causal scale enable_gqa",
        at.attention,
    ),
    Row(
        "recurrent",
        "lstm gru rnn_tanh rnn_relu",
        "input hx params has_biases num_layers dropout train bidirectional batch_first",
        at.recurrent,
    ),
    Row("recurrent", "lstm_cell=lstm gru_cell=gru", _CELL, at.recurrent),
    Row("recurrent", "rnn_tanh_cell=rnn_tanh rnn_relu_cell=rnn_relu", _CELL, at.recurrent),
    # normalisation
    Row("norm", "batch_norm", "input running_mean running_var weight bias training momentum eps", at.batch_norm),
    Row(
        "norm",
        "torch.batch_norm aten.batch_norm native_batch_norm _native_batch_norm_legit cudnn_batch_norm"
        " _native_batch_norm_legit_functional _batch_norm_with_update",
        "input weight bias running_mean running_var training momentum eps",
        at.batch_norm,
        "batch_norm",
    ),
    Row(
        "norm",
        "_native_batch_norm_legit_no_training=batch_norm",
        "input weight bias running_mean running_var momentum eps",
        at.batch_norm,
    ),
    Row("norm", "layer_norm native_layer_norm=layer_norm", "input normalized_shape weight bias eps", at.layer_norm),
    Row("norm", "rms_norm _fused_rms_norm=rms_norm", "input normalized_shape weight eps", at.rms_norm),
    Row("norm", "group_norm", "input num_groups weight bias eps", at.group_norm),
    Row("norm", "native_group_norm=group_norm", "input weight bias n channels size group eps", at.group_norm),
    Row(
        "norm",
        "instance_norm",
        "input running_mean running_var weight bias use_input_stats momentum eps",
        at.instance_norm,
    ),
    Row(
        "norm",
        "torch.instance_norm aten.instance_norm",
        "input weight bias running_mean running_var use_input_stats momentum eps",
        at.instance_norm,
    ),
    Row("norm", "local_response_norm", "input size alpha beta k", at.keep(size=5, alpha=1e-4, beta=0.75, k=1.0)),
    Row("norm", "normalize", "input p dim eps", at.normalize),
    # pools and reductions
    Row("pool", "max_pool1d max_pool2d max_pool3d", _MAX, at.pool, "max"),
    Row("pool", "max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices", _MAX, at.pool, "max"),
    Row("pool", "avg_pool1d avg_pool2d avg_pool3d", _AVG, at.pool, "avg"),
    Row(
        "pool",
        "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d",
        "input output_size",
        at.pool,
        "adaptive_avg",
    ),
    Row(
        "pool",
        "_adaptive_avg_pool1d _adaptive_avg_pool2d _adaptive_avg_pool3d",
        "input output_size",
        at.pool,
        "adaptive_avg",
    ),
    Row(
        "pool",
        "adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d",
        "input output_size return_indices",
        at.pool,
        "adaptive_max",
    ),
    Row(
        "pool",
        "adaptive_max_pool1d_with_indices adaptive_max_pool2d_with_indices adaptive_max_pool3d_with_indices",
        "input output_size",
        at.pool,
        "adaptive_max",
    ),
    Row("pool", "lp_pool1d lp_pool2d lp_pool3d", "input norm_type kernel_size stride ceil_mode", at.pool, "lp"),
    Row(
        "pool",
        "fractional_max_pool2d fractional_max_pool3d fractional_max_pool2d_with_indices",
        "input kernel_size output_size",
        at.pool,
        "fractional_max",
    ),
    Row(
        "resize",
        "max_unpool1d max_unpool2d max_unpool3d",
        "input indices kernel_size stride padding",
        function="max_unpool",
    ),
    Row(
        "reduce", "mean sum prod nansum nanmean amax amin logsumexp median nanmedian quantile mode", _REDUCE, at.reduce
    ),
    Row("reduce", "cumsum cumprod logcumsumexp cummax cummin trace sum_to_size", _REDUCE, at.reduce),
    Row("reduce", "max min aminmax", _REDUCE, at.reduce),
    Row("reduce", "special.logsumexp=logsumexp special_logsumexp=logsumexp", _REDUCE, at.reduce),
    Row("reduce", "quantile nanquantile", "input q dim keepdim", at.reduce),
    Row("reduce", "var std var_mean std_mean", _REDUCE, at.reduce),
    Row(
        "reduce",
        "norm linalg_norm=norm vector_norm=norm linalg_vector_norm=norm matrix_norm=norm",
        "input p dim keepdim",
        at.reduce,
    ),
    Row("reduce", "cosine_similarity pairwise_distance cdist dist", "input other dim", at.keep("dim", "p")),
    Row("reduce", "scatter_mean segment_reduce", "input"),
    # losses
    Row(
        "loss",
        "cross_entropy nll_loss nll_loss2d=nll_loss multi_margin_loss multilabel_soft_margin_loss",
        _LOSS,
        at.loss,
    ),
    Row(
        "loss", "binary_cross_entropy binary_cross_entropy_with_logits cross_entropy_loss=cross_entropy", _LOSS, at.loss
    ),
    Row(
        "loss",
        "mse_loss l1_loss smooth_l1_loss huber_loss kl_div poisson_nll_loss soft_margin_loss",
        "input target",
        at.loss,
    ),
    Row("loss", "hinge_embedding_loss multilabel_margin_loss", "input target", at.loss),
    Row("loss", "gaussian_nll_loss", "input target var", at.loss),
    Row("loss", "cosine_embedding_loss margin_ranking_loss", "input1 input2 target", at.loss),
    Row("loss", "triplet_margin_loss triplet_margin_with_distance_loss", "anchor positive negative", at.loss),
    Row("loss", "linear_cross_entropy", "input weight target bias", at.loss),
    Row("loss", "ctc_loss", "log_probs target input_lengths target_lengths", at.loss),
)
