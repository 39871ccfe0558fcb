"""What each torch function is: a table from its name to a kind, a canonical function, argument names and attributes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gradlint.capture import attributes as at
from gradlint.capture.arguments import Arguments
from gradlint.capture.tape import Ref


@dataclass(frozen=True)
class Entry:
    """How calls of one name are understood. `parameters` name the positional arguments and, by that, the roles."""

    kind: str
    function: str
    parameters: tuple[str, ...] = ("input",)
    extract: at.Extract = at.nothing
    reversed: bool = False  # the operands change places: `1 - x`, `1 / x`


ROLES: Mapping[str, str] = {
    "self": "input",
    "mat1": "input",
    "mat2": "other",
    "batch1": "input",
    "batch2": "other",
    "vec": "other",
    "vec2": "other",
    "tensors": "input",
    "operands": "input",
    "input1": "input",
    "input2": "other",
    "attn_mask": "mask",
    "hx": "hidden",
    "source": "other",
    "src": "other",
    "end": "other",
    "values": "other",
    "logits": "input",
    "log_probs": "input",
    "anchor": "input",
    "positive": "other",
    "x1": "input",
    "x2": "other",
}

TABLE: dict[str, Entry] = {}  # by qualified name, or by the last part of it without the underscore of in-place forms

_CELL = "input hx weight_ih_l0 weight_hh_l0 bias_ih_l0 bias_hh_l0"
_BINARY = "input other alpha"
_REDUCE = "input dim keepdim"


def _define(
    kind: str, names: str, parameters: str = "input", extract: at.Extract = at.nothing, function: str = ""
) -> None:
    """Enter every name of a space-separated list; "a=b" gives the name `a` the canonical function `b`."""
    for item in names.split():
        name, _, canonical = item.partition("=")
        TABLE[name] = Entry(kind, function or canonical or name.rpartition(".")[2], tuple(parameters.split()), extract)


def _reverse(names: str) -> None:
    """Enter the reflected operators: "__rsub__=sub" swaps the operands of `sub`."""
    for item in names.split():
        name, _, canonical = item.partition("=")
        known = TABLE[canonical]
        TABLE[name] = Entry(known.kind, known.function, ("other", "input"), known.extract, reversed=True)


# activations ---------------------------------------------------------------------------------------------------------
_define("activation", "relu tanh selu hardswish hardsigmoid mish softsign tanhshrink sigmoid special_expit=sigmoid")
_define("activation", "expit=sigmoid silu swish=silu logsigmoid log_sigmoid=logsigmoid log_expit=logsigmoid")
_define("activation", "log_sigmoid_forward=logsigmoid")
_define("activation", "relu6", extract=lambda call: {"lower": 0.0, "upper": 6.0})
_define("activation", "leaky_relu", "input negative_slope", at.renamed(slope=("negative_slope", 0.01)))
_define("activation", "elu", "input alpha", at.keep(alpha=1.0))
_define("activation", "celu", "input alpha", at.keep(alpha=1.0))
_define("activation", "gelu", "input", at.keep(approximate="none"))
_define("activation", "softplus", "input beta threshold", at.keep(beta=1.0, threshold=20.0))
_define("activation", "hardtanh", "input min_val max_val", at.renamed(lower=("min_val", -1.0), upper=("max_val", 1.0)))
_define("activation", "threshold _threshold=threshold", "input threshold value", at.keep(threshold=0.0, value=0.0))
_define("activation", "rrelu", "input lower upper training", at.keep(lower=1 / 8, upper=1 / 3, training=False))
_define("activation", "prelu _prelu_kernel=prelu", "input weight")
_define("activation", "glu", "input dim", at.along(default=-1))
_define("activation", "hardshrink softshrink", "input lambd", at.keep(lambd=0.5))
_define("softmax", "softmax log_softmax softmin special_softmax=softmax _softmax=softmax _log_softmax=log_softmax")
for _name in ("softmax", "log_softmax", "softmin", "special_softmax", "_softmax", "_log_softmax"):
    _define("softmax", f"{_name}={TABLE[_name].function}", "input dim", at.along(default=-1))
_define("softmax", "gumbel_softmax", "logits tau hard eps dim", at.keep(tau=1.0, hard=False, dim=-1))

# products with weights -----------------------------------------------------------------------------------------------
_define("linear", "linear", "input weight bias")
_define("linear", "bilinear", "input1 input2 weight bias")
_define("linear", "addmm", "bias input other", at.addmm)
_define("matmul", "addmv=addmm addbmm=addmm baddbmm", "bias batch1 batch2", at.addmm)
_define("matmul", "matmul __matmul__=matmul mm=matmul bmm=matmul mv=matmul dot=matmul vdot=matmul", "input other")
_define("matmul", "inner=matmul outer ger=outer linalg_matmul=matmul kron tensordot chain_matmul", "input other")
_define("matmul", "linalg.multi_dot=multi_dot multi_dot", "tensors")
_reverse("__rmatmul__=matmul")
_define("matmul", "einsum", "equation operands", at.keep("equation"))
_define("matmul", "_grouped_mm=grouped_mm grouped_mm scaled_mm", "input other")
_define("conv", "conv1d conv2d conv3d", "input weight bias stride padding dilation groups", at.conv, "conv")
_define(
    "conv",
    "conv_transpose1d conv_transpose2d conv_transpose3d",
    "input weight bias stride padding output_padding groups dilation",
    at.conv,
    "conv",
)
_define(
    "conv",
    "convolution _convolution",
    "input weight bias stride padding dilation transposed output_padding groups",
    at.conv,
    "conv",
)
_define(
    "embedding",
    "embedding",
    "input weight padding_idx max_norm norm_type scale_grad_by_freq sparse",
    at.embedding,
)
_define("embedding", "torch.embedding aten.embedding", "weight input padding_idx scale_grad_by_freq", at.embedding)
_define(
    "embedding",
    "embedding_bag",
    "input weight offsets max_norm norm_type scale_grad_by_freq mode sparse per_sample_weights",
    at.embedding,
)
_define(
    "attention",
    "scaled_dot_product_attention",
    "query key value attn_mask dropout_p is_causal scale enable_gqa",
    at.attention,
)
_define(
    "recurrent",
    "lstm gru rnn_tanh rnn_relu",
    "input hx params has_biases num_layers dropout train bidirectional batch_first",
    at.recurrent,
)
_define("recurrent", "lstm_cell=lstm gru_cell=gru", _CELL, at.recurrent)
_define("recurrent", "rnn_tanh_cell=rnn_tanh rnn_relu_cell=rnn_relu", _CELL, at.recurrent)
PACKED = ("input", "batch_sizes", "hx", "params", "has_biases", "num_layers", "dropout", "train", "bidirectional")

# normalisation -------------------------------------------------------------------------------------------------------
_define("norm", "batch_norm", "input running_mean running_var weight bias training momentum eps", at.batch_norm)
_define(
    "norm",
    "torch.batch_norm aten.batch_norm native_batch_norm=batch_norm _native_batch_norm_legit=batch_norm"
    " _native_batch_norm_legit_functional=batch_norm _batch_norm_with_update=batch_norm cudnn_batch_norm=batch_norm",
    "input weight bias running_mean running_var training momentum eps",
    at.batch_norm,
)
_define(
    "norm",
    "_native_batch_norm_legit_no_training=batch_norm",
    "input weight bias running_mean running_var momentum eps",
    at.batch_norm,
)
_define("norm", "layer_norm native_layer_norm=layer_norm", "input normalized_shape weight bias eps", at.layer_norm)
_define("norm", "rms_norm _fused_rms_norm=rms_norm", "input normalized_shape weight eps", at.rms_norm)
_define("norm", "group_norm", "input num_groups weight bias eps", at.group_norm)
_define("norm", "native_group_norm=group_norm", "input weight bias n channels size group eps", at.group_norm)
_define(
    "norm",
    "instance_norm",
    "input running_mean running_var weight bias use_input_stats momentum eps",
    at.instance_norm,
)
_define(
    "norm",
    "torch.instance_norm aten.instance_norm",
    "input weight bias running_mean running_var use_input_stats momentum eps",
    at.instance_norm,
)
_define("norm", "local_response_norm", "input size alpha beta k", at.keep(size=5, alpha=1e-4, beta=0.75, k=1.0))
_define("norm", "normalize", "input p dim eps", at.normalize)

# sums and products ---------------------------------------------------------------------------------------------------
_define("add", "add __add__=add __iadd__=add __radd__=add sub __sub__=sub __isub__=sub", _BINARY, at.scalar)
_define("add", "subtract=sub logical_add=add", _BINARY, at.scalar)
_reverse("__rsub__=sub rsub=sub")
_define("add", "addcmul addcdiv", "input other other value", at.keep(value=1.0))
_define("add", "lerp", "input end weight", at.keep("weight"))
_define("add", "diff", "input n dim", at.along(default=-1))
_define("add", "index_add", "input dim index source", at.along())
_define("add", "scatter_add scatter_reduce", "input dim index src reduce", at.along())
_define("mul", "mul __mul__=mul __imul__=mul __rmul__=mul multiply=mul", _BINARY, at.scalar)
_define(
    "mul",
    "div __div__=div __truediv__=div __itruediv__=div __idiv__=div true_divide=div divide=div",
    _BINARY,
    at.scalar,
)
_reverse("__rtruediv__=div __rdiv__=div")
_define("mul", "neg __neg__=neg negative=neg", "input", at.minus_one)

# shape ---------------------------------------------------------------------------------------------------------------
_define("concat", "cat concat=cat concatenate=cat", "tensors dim", at.concat)
_define("concat", "stack hstack=cat vstack=cat dstack=cat column_stack=cat row_stack=cat", "tensors dim", at.concat)
_define("concat", "block_diag", "tensors")
_define("concat", "__setitem__=setitem", "input index other", at.index)
_define("concat", "index_put _index_put_impl=index_put", "input index other accumulate", at.index)
_define("concat", "index_copy", "input dim index source", at.along())
_define("concat", "scatter", "input dim index src", at.along())
_define("concat", "select_scatter slice_scatter masked_scatter diagonal_scatter", "input other dim index")
_define("split", "split chunk tensor_split split_with_sizes=split", "input count dim", at.sections)
_define(
    "split",
    "unsafe_split=split unsafe_chunk=chunk hsplit=split vsplit=split dsplit=split",
    "input count dim",
    at.sections,
)
_define("split", "unbind", "input dim", at.sections)
_define("slice", "__getitem__=getitem index=getitem", "input index", at.index)
_define("slice", "narrow", "input dim start length", at.selected)
_define("slice", "select index_select gather take_along_dim", "input dim index", at.selected)
_define("slice", "torch.take_along_dim torch.Tensor.take_along_dim", "input index dim", at.selected)
_define("slice", "slice", "input dim start end step", at.selected)
_define("slice", "take masked_select", "input index")
_define("slice", "diagonal diag diag_embed", "input offset", at.keep(offset=0))
_define("slice", "roll", "input shifts dims", at.keep("shifts", "dims"))
_define("slice", "flip fliplr flipud", "input *dims", at.keep("dims"))
_define("slice", "rot90", "input k dims", at.keep("k", "dims"))
_define("slice", "topk", "input k dim", at.keep("k", dim=-1))
_define("slice", "sort", "input dim", at.along(default=-1))
_define("slice", "kthvalue", "input k dim", at.keep("k", dim=-1))
_define("slice", "torch.Tensor.unfold", "input dim size step", at.selected)
_define("slice", "_pack_padded_sequence=pack_padded_sequence", "input lengths batch_first")
_define("pad", "_pad_packed_sequence=pad_packed_sequence", "input batch_sizes batch_first value")
_define("slice", "as_strided", "input size stride")
_define(
    "reshape", "view reshape view_as reshape_as ravel atleast_1d atleast_2d atleast_3d unsafe_view=view", "input *shape"
)
_define("reshape", "_unsafe_view=view _reshape_alias=view view_as_real view_as_complex to_dense values", "input")
_define("reshape", "flatten", "input start_dim end_dim", at.flattened)
_define("reshape", "squeeze unsqueeze unflatten", "input dim", at.flattened)
_define("permute", "permute", "input *dims", at.permutation)
_define("permute", "transpose", "input dim0 dim1", at.permutation)
_define("permute", "swapaxes=transpose swapdims=transpose", "input axis0 axis1", at.permutation)
_define(
    "permute",
    "t=transpose T=transpose mT=transpose H=transpose mH=transpose adjoint=transpose numpy_T=transpose",
    "input",
    at.permutation,
)
_define("permute", "movedim moveaxis=movedim", "input source destination", at.permutation)
_define("permute", "channel_shuffle native_channel_shuffle=channel_shuffle", "input groups", at.keep("groups"))
_define("expand", "expand expand_as broadcast_to=expand repeat tile=repeat", "input *sizes", at.repeats)
_define("expand", "repeat_interleave", "input repeats dim", at.repeats)
_define("expand", "broadcast_tensors meshgrid", "tensors")
_define(
    "expand",
    "unfold im2col=unfold",
    "input kernel_size dilation padding stride",
    at.keep("kernel_size", "dilation", "padding", "stride"),
)
_define(
    "resize",
    "fold col2im=fold",
    "input output_size kernel_size dilation padding stride",
    at.keep("output_size", "kernel_size", "dilation", "padding", "stride"),
)
_define("resize", "interpolate upsample=interpolate", "input size scale_factor mode align_corners", at.resize)
_define(
    "resize",
    "upsample_nearest upsample_bilinear upsample_nearest1d upsample_nearest2d upsample_nearest3d",
    "input",
    at.resize,
    "interpolate",
)
_define(
    "resize",
    "upsample_linear1d upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d",
    "input",
    at.resize,
    "interpolate",
)
_define("resize", "pixel_shuffle", "input upscale_factor", at.resize)
_define("resize", "pixel_unshuffle", "input downscale_factor", at.resize)
_define(
    "resize",
    "grid_sample grid_sampler=grid_sample grid_sampler_2d=grid_sample",
    "input grid mode padding_mode align_corners",
    at.resize,
)
_define("pad", "pad", "input pad mode value", at.keep("pad", mode="constant", value=0))
_define("pad", "constant_pad_nd=pad", "input pad value", at.keep("pad", mode="constant", value=0))
for _mode in ("reflection", "replication"):
    _define("pad", " ".join(f"{_mode}_pad{n}d=pad" for n in (1, 2, 3)), "input pad", at.keep("pad", mode=_mode))
_define("dropout", "dropout dropout1d dropout2d dropout3d feature_dropout=dropout2d", "input p training", at.dropout)
_define("dropout", "alpha_dropout feature_alpha_dropout", "input p training", at.dropout)
_define("dropout", "native_dropout=dropout", "input p train", at.dropout)

# pools and reductions ------------------------------------------------------------------------------------------------
_MAX = "input kernel_size stride padding dilation ceil_mode return_indices"
_AVG = "input kernel_size stride padding ceil_mode count_include_pad divisor_override"
for _rank in ("1d", "2d", "3d"):
    _define("pool", f"max_pool{_rank} max_pool{_rank}_with_indices", _MAX, at.pool, "max")
    _define("pool", f"avg_pool{_rank}", _AVG, at.pool, "avg")
    _define("pool", f"adaptive_avg_pool{_rank}", "input output_size", at.pool, "adaptive_avg")
    _define("pool", f"_adaptive_avg_pool{_rank}", "input output_size", at.pool, "adaptive_avg")
    _define("pool", f"adaptive_max_pool{_rank}", "input output_size return_indices", at.pool, "adaptive_max")
    _define("pool", f"adaptive_max_pool{_rank}_with_indices", "input output_size", at.pool, "adaptive_max")
    _define("pool", f"lp_pool{_rank}", "input norm_type kernel_size stride ceil_mode", at.pool, "lp")
    _define("pool", f"fractional_max_pool{_rank}", "input kernel_size output_size", at.pool, "fractional_max")
    _define("resize", f"max_unpool{_rank}", "input indices kernel_size stride padding", function="max_unpool")
_define("reduce", "mean sum prod nansum nanmean amax amin logsumexp median nanmedian quantile mode", _REDUCE, at.reduce)
_define("reduce", "cumsum cumprod logcumsumexp cummax cummin trace sum_to_size", _REDUCE, at.reduce)
_define("reduce", "max min aminmax", _REDUCE, at.reduce)
_define("reduce", "special.logsumexp=logsumexp special_logsumexp=logsumexp", _REDUCE, at.reduce)
_define("reduce", "quantile nanquantile", "input q dim keepdim", at.reduce)
_define("reduce", "var std var_mean std_mean", _REDUCE, at.reduce)
_define(
    "reduce",
    "norm linalg_norm=norm vector_norm=norm linalg_vector_norm=norm matrix_norm=norm",
    "input p dim keepdim",
    at.reduce,
)
_define("reduce", "cosine_similarity pairwise_distance cdist dist", "input other dim", at.keep("dim", "p"))
_define("reduce", "scatter_mean segment_reduce", "input")

# pointwise mathematics -----------------------------------------------------------------------------------------------
_define("elementwise", "exp exp2 expm1 log log2 log10 log1p sqrt rsqrt square reciprocal abs absolute=abs __abs__=abs")
_define("elementwise", "sin cos tan asin acos atan sinh cosh asinh acosh atanh arcsin=asin arccos=acos arctan=atan")
_define(
    "elementwise", "arcsinh=asinh arccosh=acosh arctanh=atanh erf erfc erfinv lgamma digamma i0 sinc deg2rad rad2deg"
)
_define(
    "elementwise",
    "sign sgn round floor ceil trunc fix=trunc frac heaviside angle real imag conj cosine special_erf=erf",
)
_define(
    "elementwise", "special_log_ndtr=log_ndtr special_ndtr=ndtr ndtr log_ndtr entr xlogy xlog1py hypot polar complex"
)
_define("elementwise", "pow __pow__=pow __ipow__=pow float_power=pow", "input exponent", at.keep("exponent"))
_define("elementwise", "__rpow__=rpow", "exponent input", at.keep("input"))
_define("elementwise", "clamp clip=clamp", "input min max", at.keep("min", "max"))
_define("elementwise", "clamp_min=clamp", "input min", at.keep("min"))
_define("elementwise", "clamp_max=clamp", "input max", at.keep("max"))
_define(
    "elementwise", "maximum minimum fmax=maximum fmin=minimum atan2 arctan2=atan2 logaddexp logaddexp2", "input other"
)
_define("elementwise", "remainder fmod __mod__=remainder copysign nextafter cross ldexp", "input other", at.scalar)
_define("elementwise", "where", "mask input other", at.keep("input", "other"))
_define("elementwise", "torch.Tensor.where", "input mask other", at.keep("other"))
_define("elementwise", "masked_fill", "input mask value", at.keep("value"))
_define("elementwise", "index_fill", "input dim index value", at.keep("dim", "value"))
_define("elementwise", "nan_to_num", "input", at.keep("nan", "posinf", "neginf"))
_define("elementwise", "logit", "input eps", at.keep("eps"))
_define("elementwise", "tril triu", "input diagonal", at.keep(diagonal=0))
_define("elementwise", "renorm", "input p dim maxnorm", at.keep("p", "dim", "maxnorm"))
_define("elementwise", "_weight_norm=weight_norm", "input other dim", at.keep(dim=0))
_define("elementwise", "fake_quantize_per_tensor_affine fake_quantize_per_channel_affine", "input")

# no gradient ---------------------------------------------------------------------------------------------------------
_define(
    "compare", "eq ne lt le gt ge __eq__=eq __ne__=ne __lt__=lt __le__=le __gt__=gt __ge__=ge", "input other", at.scalar
)
_define(
    "compare",
    "greater=gt less=lt greater_equal=ge less_equal=le not_equal=ne isclose isin searchsorted",
    "input other",
    at.scalar,
)
_define(
    "compare", "isnan isinf isfinite isneginf isposinf isreal signbit logical_not bitwise_not __invert__=logical_not"
)
_define("compare", "logical_and logical_or logical_xor bitwise_and bitwise_or bitwise_xor gcd", "input other")
_define(
    "compare",
    "__and__=logical_and __or__=logical_or __xor__=logical_xor __iand__=logical_and __ior__=logical_or",
    "input other",
)
_define("compare", "__rand__=logical_and __ror__=logical_or __rxor__=logical_xor __ixor__=logical_xor", "input other")
_define(
    "compare", "bitwise_left_shift bitwise_right_shift __lshift__ __rshift__ __rlshift__ __rrshift__", "input other"
)
_define(
    "compare",
    "floor_divide __floordiv__=floor_divide __ifloordiv__=floor_divide __rfloordiv__=floor_divide",
    "input other",
)
_define(
    "compare",
    "argmax argmin argsort argwhere all any count_nonzero nonzero unique unique_consecutive",
    _REDUCE,
    at.keep("dim"),
)
_define("compare", "_is_all_true=all _is_any_true=any")
_define("compare", "one_hot bincount histc bucketize multinomial bernoulli poisson diff_int msort_indices", "input")
_define("create", "arange range linspace logspace", "start end step", at.create)
_define(
    "create", "zeros ones empty eye rand randn randperm tril_indices triu_indices cartesian_prod", "size", at.create
)
_define("create", "tensor as_tensor from_numpy scalar_tensor empty_strided asarray frombuffer hann_window", "data")
_define(
    "create", "hamming_window blackman_window kaiser_window bartlett_window complex_tensor combinations vander", "data"
)
_define("create", "full", "size fill_value", at.create)
_define("create", "full_like new_full=full fill", "like value", at.create)
_define("create", "zeros_like=zeros ones_like=ones empty_like=empty rand_like=rand randn_like=randn", "like", at.create)
_define(
    "create",
    "new_zeros=zeros new_ones=ones new_empty=empty new_tensor=tensor new=empty zero=zeros new_empty_strided=empty",
    "like",
)
_define("create", "randint", "low high size", at.create)
_define("create", "randint_like=randint", "like low high", at.create)
_define("create", "normal=randn", "mean std", at.create)
_define("create", "torch.Tensor.normal_=randn trunc_normal_=randn", "like mean std", at.create)
_define("create", "uniform=rand random=randint exponential log_normal cauchy geometric", "like low high", at.create)
_define("create", "torch.Tensor.bernoulli_=bernoulli", "like p", at.create)
_define("create", "affine_grid affine_grid_generator=affine_grid", "input size")
_define(
    "create",
    "xavier_uniform_ xavier_normal_ kaiming_uniform_ kaiming_normal_ orthogonal_ constant_ zeros_ ones_",
    "like",
)

# the same numbers again ----------------------------------------------------------------------------------------------
_define("copy", "contiguous clone alias lift lift_fresh pin_memory share_memory requires_grad identity positive=clone")
_define("copy", "__pos__=clone resolve_conj resolve_neg __deepcopy__=clone lift_fresh_copy rename refine_names")
_define("copy", "detach data=detach detach_copy=detach data_get=detach")
_define(
    "copy",
    "to type type_as _to_copy=to _autocast_to_full_precision=to _autocast_to_reduced_precision=to",
    "input",
    at.keep("dtype"),
)
_define(
    "copy", "float double half bfloat16 long int short char bool byte cfloat cpu cuda", "input", lambda call: {}, "to"
)
_define("copy", "copy", "overwritten input")
_define("copy", "set __set__=set", "overwritten input")
_define("copy", "_base grad", "input")

# losses --------------------------------------------------------------------------------------------------------------
_LOSS = "input target weight size_average"
_define(
    "loss", "cross_entropy nll_loss nll_loss2d=nll_loss multi_margin_loss multilabel_soft_margin_loss", _LOSS, at.loss
)
_define(
    "loss", "binary_cross_entropy binary_cross_entropy_with_logits cross_entropy_loss=cross_entropy", _LOSS, at.loss
)
_define(
    "loss",
    "mse_loss l1_loss smooth_l1_loss huber_loss kl_div poisson_nll_loss soft_margin_loss",
    "input target",
    at.loss,
)
_define("loss", "hinge_embedding_loss multilabel_margin_loss", "input target", at.loss)
_define("loss", "gaussian_nll_loss", "input target var", at.loss)
_define("loss", "cosine_embedding_loss margin_ranking_loss", "input1 input2 target", at.loss)
_define("loss", "triplet_margin_loss triplet_margin_with_distance_loss", "anchor positive negative", at.loss)
_define("loss", "ctc_loss", "log_probs target input_lengths target_lengths", at.loss)

# known, and of no kind of their own ----------------------------------------------------------------------------------
_define(
    "other", "fft ifft rfft irfft fft2 ifft2 rfft2 irfft2 fftn ifftn rfftn irfftn fftshift ifftshift stft istft hfft"
)
_define(
    "other", "fft_fft=fft fft_ifft=ifft fft_rfft=rfft fft_irfft=irfft fft_fft2=fft2 fft_ifft2=ifft2 fft_rfft2=rfft2"
)
_define("other", "fft_irfft2=irfft2 fft_fftn=fftn fft_ifftn=ifftn fft_fftshift=fftshift fft_ifftshift=ifftshift")
_define(
    "other",
    "inverse inv linalg_inv=inv det logdet slogdet cholesky qr svd eigh solve lstsq matrix_exp matrix_power pinverse",
    "input other",
)
_define(
    "other",
    "linalg_cholesky=cholesky linalg_qr=qr linalg_svd=svd linalg_eigh=eigh linalg_solve=solve linalg_det=det",
    "input other",
)
_define(
    "other",
    "linalg_householder_product=householder_product linalg_matrix_exp=matrix_exp linalg_pinv=pinverse pinv=pinverse",
    "input other",
)
_define("other", "corrcoef cov renorm_ autograd.grad=grad torch.autograd.grad=grad", "input other")


def lookup(name: str, short: str) -> Entry | None:
    """The entry of a function: by qualified name, by the last part of it, by that without the in-place underscore."""
    for key in (name, short, short.rstrip("_") if not short.startswith("__") else short):
        entry = TABLE.get(key)
        if entry is not None:
            return entry
    return None


def role(parameter: str) -> str:
    """The role of a tensor that was given for a parameter; later items of a list are further operands."""
    name, _, rest = parameter.partition(".")
    known = ROLES.get(name, name)
    if not rest:
        return known
    return {"input": "other", "hidden": "cell"}.get(known, f"{known}.{rest}")


def recurrent_weights(count: int, *, biases: bool, bidirectional: bool, layers: int) -> list[str]:
    """Names of a recurrent network's weights in torch's order: weight_ih_l0, weight_hh_l0, bias_ih_l0 …"""
    directions = ("", "_reverse") if bidirectional else ("",)
    kinds = ["weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if biases else ())]
    if count == layers * len(directions) * (len(kinds) + 1):
        kinds.append("weight_hr")  # the projection of an LSTM with proj_size
    return [f"{kind}_l{layer}{way}" for layer in range(layers) for way in directions for kind in kinds]


def names() -> Iterator[str]:
    """Every name of the table."""
    return iter(TABLE)


def bind(parameters: tuple[str, ...], args: Sequence[Any]) -> dict[str, Any]:
    """The positional arguments by name; a last parameter "*dims" takes all that are left, however they were given."""
    bound = dict(zip(parameters, args, strict=False))
    last = parameters[-1]
    if not last.startswith("*"):
        return bound
    rest = tuple(args[len(parameters) - 1 :])
    bound.pop(last, None)
    single = len(rest) == 1 and isinstance(rest[0], (list, tuple)) and not isinstance(rest[0], Ref)
    return bound | ({last[1:]: rest[0] if single else rest} if rest else {})


def attributes(entry: Entry, call: Arguments) -> dict[str, object]:
    """The attributes of a call: its canonical function first."""
    function: dict[str, object] = {"function": entry.function}
    reflected: dict[str, object] = {"reversed": True} if entry.reversed else {}
    return function | entry.extract(call) | reflected
