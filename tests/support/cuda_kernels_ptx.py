"""Three kernels as PTX, which any GPU's driver compiles: for tests that must not need a compiler.

nvcc -ptx -arch=compute_80, with version and target lowered to what drivers for CUDA 12 and later know, from:

    __global__ void add_value(float *x, unsigned n, float v) { unsigned i = ...; if (i < n) x[i] += v; }
    __global__ void write_null(unsigned long long address) { *(volatile int *)address = 1; }
    __global__ void spin(long long cycles) { long long start = clock64(); while (clock64() - start < cycles) {} }
"""

from __future__ import annotations

PTX = b""".version 7.0
.target sm_70
.address_size 64
.visible .entry add_value(.param .u64 add_value_param_0, .param .u32 add_value_param_1, .param .f32 add_value_param_2)
{
    .reg .pred %p<2>;
    .reg .f32 %f<4>;
    .reg .b32 %r<6>;
    .reg .b64 %rd<5>;
    ld.param.u64 %rd1, [add_value_param_0];
    ld.param.u32 %r2, [add_value_param_1];
    ld.param.f32 %f1, [add_value_param_2];
    mov.u32 %r3, %ctaid.x;
    mov.u32 %r4, %ntid.x;
    mov.u32 %r5, %tid.x;
    mad.lo.s32 %r1, %r3, %r4, %r5;
    setp.ge.u32 %p1, %r1, %r2;
    @%p1 bra $L__BB0_2;
    cvta.to.global.u64 %rd2, %rd1;
    mul.wide.u32 %rd3, %r1, 4;
    add.s64 %rd4, %rd2, %rd3;
    ld.global.f32 %f2, [%rd4];
    add.f32 %f3, %f2, %f1;
    st.global.f32 [%rd4], %f3;
$L__BB0_2:
    ret;
}
.visible .entry write_null(.param .u64 write_null_param_0)
{
    .reg .b32 %r<2>;
    .reg .b64 %rd<3>;
    ld.param.u64 %rd1, [write_null_param_0];
    cvta.to.global.u64 %rd2, %rd1;
    mov.u32 %r1, 1;
    st.volatile.global.u32 [%rd2], %r1;
    ret;
}
.visible .entry spin(.param .u64 spin_param_0)
{
    .reg .pred %p<2>;
    .reg .b64 %rd<6>;
    ld.param.u64 %rd2, [spin_param_0];
    mov.u64 %rd3, %clock64;
$L__BB2_1:
    mov.u64 %rd4, %clock64;
    sub.s64 %rd5, %rd4, %rd3;
    setp.lt.s64 %p1, %rd5, %rd2;
    @%p1 bra $L__BB2_1;
    ret;
}
"""
