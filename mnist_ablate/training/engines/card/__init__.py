"""The engine ``fused`` on a graphics card: all runs of a study at once, with the bits of the processor's kernels.

`kernels` has what the card computes, in CUDA C++; `layout` what lies where in its memory; `source` puts both together
with the numbers that the processor's kernels have, too; `compiler` turns them into machine code, with NVRTC; `driver`
talks to the card; `study` prepares runs, starts epochs and takes the results back.

Nothing here is imported by a process that trains on the processor.
"""
