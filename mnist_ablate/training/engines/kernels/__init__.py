"""The arithmetic of the fused engine, compiled by Numba: what a run computes, to the bit, on every processor.

What is trained is a mathematical function of a run's specification, because every operation that decides a bit is an
operation of IEEE 754, and their order is written down:

1. Additions, products, quotients, square roots and fused multiply-adds, each rounded once, to nearest, ties to even.
   A product joins a sum by an explicit `fma`. The compiler has no licence to contract, reorder or replace anything.
2. A sum is one chain, in increasing index. Sums side by side, as for the columns of a matrix, may be computed in any
   arrangement: in vectors of any width, block by block, dense or without zeros. None changes a bit.
3. Exponentials and logarithms are our own, in float64: `arithmetic.exp`, `arithmetic.log`.
4. What is kept from step to step and may become very small is set to 0 below 2**-100: parameters that decay, Adam's
   moments, running statistics; so are the gradients of the outputs. Run with subnormal numbers enabled, as IEEE 754
   has them; see `training.protocol`.
5. Pixels are bytes, divided by 255, rounded once. Random words are integers.

Notation: a batch of n images; a layer has inputs x (n, inputs), weights W (inputs, outputs), biases b and linear
outputs z = x W + b. d... is the gradient of the mean loss. All arrays have one floating-point type, and so have
constants: otherwise Numba would compute in float64.

`rooms` has what the kernels work on, `steps` a step of training from above; the others are its parts.
"""
