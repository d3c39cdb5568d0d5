# SPDX-License-Identifier: Apache-2.0
"""The readers of kernel_instructions.py on listings as the tools give them, and what it calls an error."""
import unittest

import kernel_instructions
from kernel_instructions import Counts

SASS = """
Fatbin elf code:
================
arch = sm_90a
compressed

	code for sm_90a
	.target	sm_90a

		Function : _Z5TwiceILi2EEvPf
	.headerflags	@"EF_CUDA_ACCELERATORS EF_CUDA_SM90"
        /*0000*/                   LDC R1, c[0x0][0x28] ;                  /* 0x00000a00ff017b82 */
                                                                           /* 0x000fe20000000800 */
        /*0010*/              @!P0 LDG.E.128 R4, desc[UR4][R2.64] ;        /* 0x0000000402048981 */
        /*0020*/                   LDG.E.128.CONSTANT R4, desc[UR4][R2.64] ; /* 0x0000000402048981 */
        /*0030*/                   LDG.E.64 R4, desc[UR4][R2.64] ;         /* 0x0000000402048981 */
        /*0040*/             @!UP0 LDGSTS.E.BYPASS.128 [R9], desc[UR4][R2.64] ; /* 0x00 */
        /*0050*/                   HMMA.16816.F32 R4, R8, R12, R4 ;        /* 0x0000000c0804723c */
        /*0060*/                   QGMMA.64x64x32.F32.E4M3.E4M3 R4, gdesc[UR4], R4 ; /* 0x00 */
        /*0070*/                   STL [R1], R4 ;                          /* 0x0000000401007387 */
        /*0080*/                   LDS.128 R4, [R1] ;                      /* 0x0000000401007387 */
        /*10090*/                  EXIT ;                                  /* 0x000000000000794d */
		..........
		Function : _Z3OnePf
        /*0000*/                   EXIT ;                                  /* 0x000000000000794d */

Fatbin elf code:
================
arch = sm_80

	code for sm_80
		Function : _Z3OnePf
        /*0000*/                   EXIT ;                                  /* 0x000000000000794d */
        /*0010*/                   BRA 0x10 ;                              /* 0xfffffff000007947 */
"""

OBJDUMP = """
library.o:	file format elf64-amdgpu

Disassembly of section .text:

0000000000001900 <_Z3OnePf>:
	s_load_dwordx4 s[0:3], s[0:1], 0x0                         // 000000001900: C00A0000 00000000
	global_load_dwordx4 v[0:3], v0, s[0:1]                     // 000000001908: DC5C8000 00000000
	global_load_b128 v[0:3], v0, s[0:1]                        // 000000001910: DC5C8000 00000000
	global_load_dwordx2 v[0:1], v0, s[0:1]                     // 000000001918: DC548000 00000000
	v_mfma_f32_16x16x16_f16 v[0:3], v[4:5], v[6:7], v[0:3]     // 000000001920: D3CD0000 04020D04
	v_wmma_f32_16x16x16_f16 v[0:7], v[8:15], v[16:23], v[0:7]  // 000000001928: CC400000 1C022108
	scratch_store_dword off, v0, s32                           // 000000001930: DC704000 00200000
	s_endpgm                                                   // 000000001938: BF810000

0000000000001a00 <helper>:
	v_mfma_f32_16x16x16_f16 v[0:3], v[4:5], v[6:7], v[0:3]     // 000000001A00: D3CD0000 04020D04
"""


class KernelInstructionsTest(unittest.TestCase):
    def test_counts_sass(self):
        found = kernel_instructions.parse_sass(SASS.splitlines())
        self.assertEqual(found, {"sm_90a": {"Twice<2>": Counts(tensor=2, wide=3, local=1, all=10), "One": Counts(0, 0, 0, 1)},
                                 "sm_80": {"One": Counts(0, 0, 0, 2)}})

    def test_counts_amd_instructions_of_kernels(self):
        counter = kernel_instructions.parse_objdump(OBJDUMP.splitlines(), {"_Z3OnePf"})
        self.assertEqual(counter.by_name(), {"One": Counts(tensor=2, wide=2, local=1, all=8)})

    def test_names_what_a_kernel_lacks(self):
        fine = {"MatmulSlices<F32Chunk, 1, true, false>": Counts(4, 12, 0, 900), "Sample<float const*>": Counts(0, 0, 0, 5)}
        self.assertEqual(kernel_instructions.problems({"sm_90a": fine}, ["sm_90a"]), [])
        lacks = {"MatmulTiles<HalfChunk<true> >": Counts(0, 5, 3, 900)}
        self.assertEqual(kernel_instructions.problems({"sm_90a": lacks, "sm_80": lacks}, ["sm_90a", "sm_89"]), [
            "no kernels for sm_89",
            "sm_80: MatmulTiles<HalfChunk<true> > has 0 tensor-core products, not 4 or more",
            "sm_80: MatmulTiles<HalfChunk<true> > has 5 loads of 16 bytes, not 6 or more (chunks of weights, rounded activations)",
            "sm_90a: MatmulTiles<HalfChunk<true> > has 0 tensor-core products, not 4 or more",
            "sm_90a: MatmulTiles<HalfChunk<true> > has 5 loads of 16 bytes, not 6 or more (chunks of weights, rounded activations)",
            "sm_90a: MatmulTiles<HalfChunk<true> > has 3 reads and writes of local memory"])

    def test_wants_a_line_for_each_kernel(self):
        found = {a: {"Novel<2>": Counts(0, 0, 0, 1)} for a in ("gfx942", "gfx1100")}
        self.assertEqual(kernel_instructions.problems(found, ["gfx942", "gfx1100"]),
                         ["Novel<2> is of no line of EXPECTED in kernel_instructions.py: say what its code must have"])

    def test_sums_up_a_family(self):
        text = kernel_instructions.table({"sm_90a": {"A<1>": Counts(1, 2, 0, 10), "A<2>": Counts(1, 4, 0, 20)}})
        self.assertEqual(text.splitlines()[-1].split(), ["2", "1", "2-4", "0", "10-20", "A"])


if __name__ == "__main__":
    unittest.main()
