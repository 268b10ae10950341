"""The operators that a program may use: those of aten that compute, and arithmetic of sizes.

Others are refused by name. Left out are those that read files (`from_file`), that show memory which holds other
data (`empty`, `as_strided`, `resize_`), that check little (sparse, quantized and nested ones), and other libraries.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch._ops import OpOverload

_NAMES = """
    __and__ __or__ __xor__ __lshift__ __rshift__ __iand__ __ior__ __ixor__
    _adaptive_avg_pool2d _adaptive_avg_pool3d _assert_async _assert_scalar _assert_tensor_metadata _cdist_forward
    _convolution _fft_c2c _fft_c2r _fft_r2c _functional_assert_async _functional_assert_scalar _local_scalar_dense
    _log_softmax _native_batch_norm_legit _native_batch_norm_legit_no_training _prelu_kernel _safe_softmax
    _scaled_dot_product_flash_attention_for_cpu _shape_as_tensor _softmax _to_copy _trilinear _unique2
    _unsafe_index _unsafe_view _weight_norm
    abs absolute acos acosh adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d
    adaptive_max_pool2d adaptive_max_pool3d add addbmm addcdiv addcmul addmm addmv addr adjoint affine_grid_generator
    alias all alpha_dropout amax amin aminmax angle any arange arccos arccosh arcsin arcsinh arctan arctan2 arctanh
    argmax argmin argsort argwhere asin asinh atan atan2 atanh atleast_1d atleast_2d atleast_3d avg_pool1d avg_pool2d
    avg_pool3d baddbmm bartlett_window batch_norm bernoulli bilinear bincount bitwise_and bitwise_left_shift
    bitwise_not bitwise_or bitwise_right_shift bitwise_xor blackman_window block_diag bmm broadcast_tensors
    broadcast_to bucketize cartesian_prod cat cdist ceil celu chain_matmul channel_shuffle cholesky chunk clamp
    clamp_max clamp_min clip clone col2im column_stack combinations complex concat concatenate conj conj_physical
    constant_pad_nd contiguous conv1d conv2d conv3d conv_tbc conv_transpose1d conv_transpose2d conv_transpose3d
    convolution copy copysign cos cosh cosine_similarity count_nonzero cov cross cummax cummin cumprod cumsum deg2rad
    detach detach_ diag diag_embed diagflat diagonal diagonal_scatter diff digamma dist div divide dot dropout dstack
    einsum elu embedding embedding_bag eq equal erf erfc erfinv exp exp2 expand expand_as expm1 eye feature_dropout
    fft_fft fft_fft2 fft_fftfreq fft_fftn fft_fftshift fft_hfft fft_ifft fft_ifft2 fft_ifftn fft_ifftshift fft_irfft
    fft_irfft2 fft_irfftn fft_rfft fft_rfft2 fft_rfftfreq fft_rfftn
    fill fix flatten flip fliplr flipud float_power floor floor_divide fmax fmin fmod frac frobenius_norm full full_like
    gather gcd ge gelu glu greater greater_equal grid_sampler grid_sampler_2d grid_sampler_3d group_norm gru gru_cell
    gt hamming_window hann_window hardshrink hardsigmoid hardswish hardtanh heaviside hstack huber_loss hypot im2col
    imag index index_add index_copy index_fill index_put index_reduce index_select inner instance_norm inverse
    is_nonzero isclose isfinite isin isinf isnan isneginf isposinf isreal istft item kaiser_window kron kthvalue
    layer_norm     lcm le leaky_relu lerp less less_equal lgamma lift_fresh lift_fresh_copy
    linalg_cholesky linalg_cross linalg_det linalg_diagonal linalg_eigh linalg_inv linalg_matmul linalg_matrix_norm
    linalg_multi_dot linalg_norm linalg_pinv linalg_qr linalg_slogdet linalg_solve linalg_svd linalg_vecdot
    linalg_vector_norm
    linear linspace log log10 log1p log2 log_sigmoid log_softmax logaddexp logaddexp2 logcumsumexp logical_and
    logical_not logical_or logical_xor logit logspace logsumexp lstm lstm_cell lt masked_fill masked_scatter
    masked_select matmul matrix_exp matrix_power max max_pool1d max_pool1d_with_indices max_pool2d
    max_pool2d_with_indices max_pool3d max_pool3d_with_indices max_unpool2d maximum mean median meshgrid min minimum
    mish mm mode moveaxis movedim mse_loss msort mul multinomial multiply mv nan_to_num nanmean nanmedian nansum narrow
    native_batch_norm native_dropout native_group_norm native_layer_norm ne neg negative new_full new_ones new_zeros
    nonzero nonzero_static norm normal not_equal numel one_hot ones ones_like outer pad pad_sequence
    pairwise_distance pdist permute pixel_shuffle pixel_unshuffle polar polygamma positive pow prelu prod quantile
    nanquantile rad2deg rand rand_like randint randint_like randn randn_like randperm ravel real reciprocal
    reflection_pad1d reflection_pad2d reflection_pad3d relu relu6 remainder repeat repeat_interleave
    replication_pad1d replication_pad2d replication_pad3d reshape reshape_as resolve_conj resolve_neg rms_norm
    rnn_relu rnn_relu_cell rnn_tanh rnn_tanh_cell roll rot90 round row_stack rrelu rsqrt rsub scalar_tensor
    scaled_dot_product_attention scatter scatter_add scatter_reduce searchsorted select select_scatter selu sgn sigmoid
    sign signbit silu sin sinc sinh slice slice_scatter smooth_l1_loss softmax softplus softshrink sort
    special_entr special_erf special_erfc special_erfinv special_exp2 special_expit special_expm1 special_i0
    special_log1p special_log_softmax special_logit special_logsumexp special_ndtr special_softmax special_xlogy
    split split_with_sizes sqrt square squeeze stack std std_mean stft sub subtract sum sum_to_size swapaxes swapdims
    sym_constrain_range sym_constrain_range_for_size sym_numel sym_size sym_stride t take take_along_dim tan tanh
    tensor_split tensordot threshold tile to topk trace transpose trapezoid tril tril_indices triu triu_indices
    true_divide trunc type_as unbind unflatten unfold uniform unique_consecutive unique_dim unsafe_chunk unsafe_split
    unsafe_split_with_sizes unsqueeze upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d
    upsample_nearest2d upsample_nearest3d upsample_trilinear3d _upsample_bicubic2d_aa _upsample_bilinear2d_aa
    _upsample_nearest_exact1d _upsample_nearest_exact2d vander var var_mean vdot view view_as view_as_complex
    view_as_real vstack where xlogy zero zeros zeros_like
"""
_ATEN = frozenset(_NAMES.split())
_ATEN_PREFIX = "torch.ops.aten."
# Overloads of TorchScript, which take a dtype as any number.
_OF_SCRIPTS = "prim_"
# Sizes are 64-bit integers; larger ones would take all memory.
_LARGEST = 2**63


def _multiply(a: Any, b: Any) -> Any:
    """The product of sizes. Raises OverflowError beyond 64 bits."""
    product = a * b
    if abs(product) >= _LARGEST:
        raise OverflowError("a size is larger than 64 bits")
    return product


_ARITHMETIC = "eq ne lt le gt ge neg pos add sub floordiv mod truediv and_ or_"
# Arithmetic of sizes, which are Python's numbers while a program runs.
_SIZES: dict[str, Callable[..., Any]] = {
    **{f"_operator.{name}": getattr(operator, name) for name in _ARITHMETIC.split()},
    "_operator.mul": _multiply,
    "math.trunc": int,
    "torch.sym_int": torch.sym_int,
    "torch.sym_float": torch.sym_float,
    "torch.sym_max": torch.sym_max,
    "torch.sym_min": torch.sym_min,
    "torch.sym_not": torch.sym_not,
    "torch.sym_ite": torch.sym_ite,
    "torch.sym_sqrt": torch.sym_sqrt,
}


def size_function(target: str) -> Callable[..., Any] | None:
    """The function of sizes that torch.export calls `target`; None where there is none."""
    return _SIZES.get(target)


def aten_operator(target: str) -> OpOverload | None:
    """The operator that torch.export calls `target`; None where it is not one of the list, or PyTorch lacks it."""
    if not target.startswith(_ATEN_PREFIX):
        return None
    name, _, overload = target.removeprefix(_ATEN_PREFIX).partition(".")
    if name not in _ATEN and name.removesuffix("_") not in _ATEN:  # relu_ is relu in place
        return None
    found = getattr(getattr(torch.ops.aten, name, None), overload, None)
    if not isinstance(found, OpOverload) or _writes_out(found) or _is_plain(found) or overload.startswith(_OF_SCRIPTS):
        return None
    return found


def schema_of(found: OpOverload) -> torch.FunctionSchema:
    """An operator's arguments and returns."""
    return found._schema  # noqa: SLF001  # there is no other way to it


def _is_plain(found: OpOverload) -> bool:
    """Whether an operator has numbers alone: sizes have operators of their own, which check a division by zero."""
    schema = schema_of(found)
    kinds = [str(one.type) for one in (*schema.arguments, *schema.returns)]
    return bool(schema.returns) and not any("Tensor" in kind for kind in kinds)


def _writes_out(found: OpOverload) -> bool:
    """Whether an operator writes into a tensor that it is given for that."""
    return any(argument.is_out for argument in schema_of(found).arguments)
