"""Numbers that all kernels share, those of the processor and of a graphics card."""

TINY = 2.0**-100
"""Values smaller than this are stored as 0.

Float32's smallest normal number is 2**-126. From a stored value that is 0 or not below 2**-100, an update of Adam's
moments computes no subnormal number that could change a bit of what is stored, so the processor's modes for them
(FTZ, DAZ) do not matter, and nothing is slow.
"""

LOG2_E = 1.4426950408889634
LN2_HIGH = 6.93147180369123816490e-01  # 33 bits, so that its products with small integers are exact
LN2_LOW = 1.90821492927058770002e-10
ROUND = 1.5 * 2.0**52
"""Added to a number below 2**51 it leaves the nearest integer in the last bits, ties to even."""
EXP_SMALLEST, EXP_LARGEST = -708.0, 709.0
"""Below, `exp` is 0; above, it is infinite."""

EPS = 1e-5
MOMENTUM = 0.1
"""As torch's normalisations have them."""

NO_NORM, BATCH_NORM, GROUP_NORM = 0, 1, 2
ADAM, SGD = 0, 1
