/* A libcuda.so.1 whose GPU is the host: enough of the driver for motedge.runtime.cuda, so that real cuda-bindings (and
 * pycuda) run where there is no GPU. Strict where a driver is: no call without a current context, a lost context stays
 * lost, what can't be captured ends the capture. Work runs when it is enqueued. Kernels are known by name.
 * FAKE_CUDA_MEMORY: bytes of the GPU. FAKE_CUDA_DRIVER: its version, 13000. FAKE_CUDA_DEVICES: how many GPUs.
 * fake_live(kind): how many of "memory", "pinned", "stream", "event", "module", "graph", "exec", "retained" are left.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int R;
typedef unsigned long long Ptr;
enum { OK = 0, INVALID = 1, OOM = 2, UNINIT = 3, NO_DEVICE = 100, BAD_DEVICE = 101, BAD_IMAGE = 200, NO_CONTEXT = 201,
       BAD_HANDLE = 400, ILLEGAL_STATE = 401, NOT_FOUND = 500, NOT_READY = 600, ILLEGAL_ADDRESS = 700, UNSUPPORTED = 900,
       INVALIDATED = 901, CAPTURED_EVENT = 907 };

typedef struct Op { int kind; Ptr a, b; size_t n, pa, pb, rows; char name[64]; unsigned char args[256]; struct Op *next; } Op;
typedef struct Stream { int magic, capturing, lost; Op *first, *last; struct Stream *joined; } Stream;
typedef struct { int magic; Op *first; } Graph;
typedef struct { int magic, recorded, captured; double ms; } Event;
typedef struct { int magic; char *text; } Module;
typedef struct { int magic; char name[64]; } Function;
typedef struct Block { Ptr at; size_t n; void *raw; struct Block *next; } Block;
typedef struct { size_t srcX, srcY; int srcType, pad0; void *srcHost; Ptr srcDevice; void *srcArray; size_t srcPitch;
                 size_t dstX, dstY; int dstType, pad1; void *dstHost; Ptr dstDevice; void *dstArray; size_t dstPitch;
                 size_t width, height; } Copy2D;
enum { STREAM = 0x57, EVENT = 0x45, GRAPH = 0x47, EXEC = 0x58, MODULE = 0x4d };

static int started, sticky, retained, live[8], owner, context_mark;
static size_t held;
static double clock_ms;
static Block *blocks, *pinned;
static __thread void *stack[32];
static __thread int depth;
static __thread Stream *capture;

static long env(const char *name, long fallback) { const char *v = getenv(name); return v ? atol(v) : fallback; }
static size_t memory(void) { return (size_t)env("FAKE_CUDA_MEMORY", 1L << 30); }
long fake_live(const char *kind) {
    const char *names[] = {"memory", "pinned", "stream", "event", "module", "graph", "exec"};
    for (int i = 0; i < 7; i++) if (!strcmp(kind, names[i])) return live[i];
    return !strcmp(kind, "retained") ? retained : !strcmp(kind, "depth") ? depth : -1;
}
static R ready(void) {
    if (!started || getpid() != owner) return UNINIT;
    if (depth < 1) return NO_CONTEXT;
    return sticky ? ILLEGAL_ADDRESS : OK;
}
#define READY do { R r = ready(); if (r) return r; } while (0)
/* What can't be captured ends the capture of this thread */
#define UNCAPTURED do { READY; if (capture) { capture->lost = 1; return UNSUPPORTED; } } while (0)

R cuInit(unsigned flags) {
    if (env("FAKE_CUDA_DEVICES", 1) < 1) return NO_DEVICE;
    started = 1; owner = getpid(); return flags ? INVALID : OK;
}
R cuDriverGetVersion(int *v) { *v = (int)env("FAKE_CUDA_DRIVER", 13000); return OK; }
R cuDeviceGetCount(int *n) { *n = (int)env("FAKE_CUDA_DEVICES", 1); return started ? OK : UNINIT; }
R cuDeviceGet(int *d, int i) { if (i < 0 || i >= env("FAKE_CUDA_DEVICES", 1)) return BAD_DEVICE; *d = i; return OK; }
R cuDeviceGetName(char *s, int n, int d) { (void)d; snprintf(s, (size_t)n, "Fake GPU"); return OK; }
R cuDeviceTotalMem_v2(size_t *n, int d) { (void)d; *n = memory(); return OK; }
R cuDeviceComputeCapability(int *a, int *b, int d) { (void)d; *a = 9; *b = 0; return OK; }
R cuDeviceGetAttribute(int *v, int a, int d) { (void)d; *v = a == 75 ? 9 : 0; return OK; }
R cuDevicePrimaryCtxRetain(void **c, int d) { (void)d; if (!started) return UNINIT; retained++; *c = &context_mark; return OK; }
R cuDevicePrimaryCtxRelease_v2(int d) { (void)d; if (retained < 1) return NO_CONTEXT; retained--; return OK; }
R cuDevicePrimaryCtxReset_v2(int d) {
    (void)d; sticky = 0; held = 0; blocks = pinned = NULL; memset(live, 0, sizeof live); return OK;
}
R cuCtxPushCurrent_v2(void *c) {
    if (getpid() != owner) return UNINIT;
    if (!c || depth == 32) return NO_CONTEXT;
    stack[depth++] = c; return OK;
}
R cuCtxPopCurrent_v2(void **c) { if (depth < 1) return NO_CONTEXT; *c = stack[--depth]; return OK; }
R cuCtxGetCurrent(void **c) { *c = depth ? stack[depth - 1] : NULL; return OK; }
R cuCtxGetDevice(int *d) { READY; *d = 0; return OK; }
R cuCtxSynchronize(void) { UNCAPTURED; return OK; }
R cuCtxGetStreamPriorityRange(int *least, int *greatest) { READY; *least = 0; *greatest = -5; return OK; }

static R take(Block **list, int kind, Ptr *p, size_t n) {
    Block *b = calloc(1, sizeof *b);
    b->n = n; b->raw = malloc(n + 512);
    b->at = ((Ptr)b->raw + 255) / 256 * 256; b->next = *list; *list = b;
    memset((void *)b->at, 0xff, n); live[kind]++; *p = b->at; return OK;
}
static R give(Block **list, int kind, Ptr p, size_t *n) {
    for (; *list; list = &(*list)->next) if ((*list)->at == p) {
        Block *b = *list; *list = b->next; *n = b->n; free(b->raw); free(b); live[kind]--; return OK;
    }
    return INVALID;
}
static int known(Ptr p, size_t n) {
    Block *lists[] = {blocks, pinned};
    for (int i = 0; i < 2; i++)
        for (Block *b = lists[i]; b; b = b->next) if (p >= b->at && p + n <= b->at + b->n) return 1;
    return 0;
}
R cuMemAlloc_v2(Ptr *p, size_t n) {
    UNCAPTURED;
    if (!n) return INVALID;
    if (held + n > memory()) return OOM;
    held += n; return take(&blocks, 0, p, n);
}
R cuMemFree_v2(Ptr p) { size_t n = 0; UNCAPTURED; R r = give(&blocks, 0, p, &n); held -= n; return r; }
R cuMemHostAlloc(void **p, size_t n, unsigned f) { Ptr q; (void)f; UNCAPTURED; R r = take(&pinned, 1, &q, n); *p = (void *)q; return r; }
R cuMemFreeHost(void *p) { size_t n; UNCAPTURED; return give(&pinned, 1, (Ptr)p, &n); }
R cuMemGetInfo_v2(size_t *f, size_t *t) { READY; *t = memory(); *f = *t - held; return OK; }

R cuStreamCreateWithPriority(void **s, unsigned flags, int priority) {
    (void)flags; UNCAPTURED; if (priority > 0 || priority < -5) return INVALID;
    Stream *made = calloc(1, sizeof *made); made->magic = STREAM; *s = made; live[2]++; return OK;
}
R cuStreamCreate(void **s, unsigned flags) { return cuStreamCreateWithPriority(s, flags, 0); }
#define IS(x, m) do { if (!(x) || *(int *)(x) != (m)) return BAD_HANDLE; } while (0)
R cuStreamDestroy_v2(void *s) { READY; IS(s, STREAM); *(int *)s = 0; free(s); live[2]--; return OK; }
R cuStreamSynchronize(void *s) { UNCAPTURED; IS(s, STREAM); return OK; }
R cuStreamWaitEvent(void *s, void *e, unsigned f) {
    (void)f; READY; IS(s, STREAM); IS(e, EVENT);
    if (capture && ((Event *)e)->captured && s != capture) ((Stream *)s)->joined = capture;
    return OK;
}
R cuStreamBeginCapture_v2(void *s, int mode) {
    Stream *t = s; (void)mode; READY; IS(s, STREAM); if (t->capturing || capture) return ILLEGAL_STATE;
    t->capturing = 1; t->lost = 0; t->first = t->last = NULL; capture = t; return OK;
}
R cuStreamEndCapture(void *s, void **g) {
    Stream *t = s; IS(s, STREAM); *g = NULL; if (!t->capturing) return ILLEGAL_STATE;
    t->capturing = 0; capture = NULL;
    if (sticky) return ILLEGAL_ADDRESS;
    if (t->lost) return INVALIDATED;
    Graph *made = calloc(1, sizeof *made); made->magic = GRAPH; made->first = t->first; *g = made; live[5]++; return OK;
}
R cuEventCreate(void **e, unsigned f) { (void)f; READY; Event *made = calloc(1, sizeof *made); made->magic = EVENT; *e = made; live[3]++; return OK; }
R cuEventDestroy_v2(void *e) { READY; IS(e, EVENT); *(int *)e = 0; free(e); live[3]--; return OK; }
R cuEventRecord(void *e, void *s) {
    Event *v = e; READY; IS(e, EVENT);
    /* 1 and 2: the legacy stream, the thread's */
    if (s != (void *)1 && s != (void *)2) IS(s, STREAM);
    v->captured = capture != NULL; v->recorded = !v->captured; v->ms = clock_ms; return OK;
}
R cuEventSynchronize(void *e) { UNCAPTURED; IS(e, EVENT); return ((Event *)e)->captured ? CAPTURED_EVENT : OK; }
R cuEventQuery(void *e) { UNCAPTURED; IS(e, EVENT); return ((Event *)e)->captured ? CAPTURED_EVENT : OK; }
R cuEventElapsedTime_v2(float *ms, void *a, void *b) {
    READY; IS(a, EVENT); IS(b, EVENT); if (!((Event *)a)->recorded || !((Event *)b)->recorded) return BAD_HANDLE;
    *ms = (float)(((Event *)b)->ms - ((Event *)a)->ms); return OK;
}
R cuEventElapsedTime(float *ms, void *a, void *b) { return cuEventElapsedTime_v2(ms, a, b); }

static R run(const Op *o) {
    clock_ms += 1;
    if (sticky) return ILLEGAL_ADDRESS;
    if (o->kind == 0)
        for (size_t i = 0; i < o->rows; i++) memcpy((void *)(o->a + i * o->pa), (void *)(o->b + i * o->pb), o->n);
    if (o->kind == 1) memset((void *)o->a, 0, o->n);
    if (o->kind == 2 && !strcmp(o->name, "add_value")) {
        Ptr p; unsigned n; float v; memcpy(&p, o->args, 8); memcpy(&n, o->args + 8, 4); memcpy(&v, o->args + 12, 4);
        if (!known(p, 4 * (size_t)n)) { sticky = 1; return OK; }
        for (unsigned i = 0; i < n; i++) ((float *)p)[i] += v;
    }
    if (o->kind == 2 && !strcmp(o->name, "write_null")) sticky = 1;
    return OK;
}
static R put(void *s, Op o) {
    Stream *t = s; READY; IS(s, STREAM);
    if (t->joined && t->joined == capture) t = capture;
    if (!t->capturing) return run(&o);
    Op *kept = malloc(sizeof *kept); *kept = o; kept->next = NULL;
    if (t->last) t->last->next = kept; else t->first = kept;
    t->last = kept; return OK;
}
static R rows(Ptr to, size_t tp, Ptr of, size_t fp, size_t width, size_t height, void *s) {
    Op o = {.kind = 0, .a = to, .b = of, .n = width, .pa = tp, .pb = fp, .rows = height};
    READY; if (!height || !width) return OK;
    if (!known(to, (height - 1) * tp + width) || !known(of, (height - 1) * fp + width)) return INVALID;
    return put(s, o);
}
R cuMemcpyAsync(Ptr to, Ptr of, size_t n, void *s) { return rows(to, n, of, n, n, 1, s); }
R cuMemcpy2DAsync_v2(const Copy2D *c, void *s) {
    if (c->srcType != 4 || c->dstType != 4 || c->srcPitch < c->width || c->dstPitch < c->width) return INVALID;
    return rows(c->dstDevice, c->dstPitch, c->srcDevice, c->srcPitch, c->width, c->height, s);
}
R cuMemsetD8Async(Ptr p, unsigned char v, size_t n, void *s) {
    Op o = {.kind = 1, .a = p, .n = n}; READY; return v || !known(p, n) ? INVALID : put(s, o);
}
R cuModuleLoadData(void **m, const void *image) {
    UNCAPTURED; if (strncmp(image, ".version", 8)) return BAD_IMAGE;
    Module *made = calloc(1, sizeof *made); made->magic = MODULE; made->text = strdup(image); *m = made; live[4]++; return OK;
}
R cuModuleLoadDataEx(void **m, const void *image, unsigned n, int *o, void **v) { (void)n; (void)o; (void)v; return cuModuleLoadData(m, image); }
R cuModuleUnload(void *m) { READY; IS(m, MODULE); free(((Module *)m)->text); *(int *)m = 0; free(m); live[4]--; return OK; }
R cuModuleGetFunction(void **f, void *m, const char *name) {
    char entry[96]; READY; IS(m, MODULE); snprintf(entry, sizeof entry, ".entry %s(", name);
    if (!strstr(((Module *)m)->text, entry)) return NOT_FOUND;
    Function *made = calloc(1, sizeof *made); snprintf(made->name, sizeof made->name, "%s", name); *f = made; return OK;
}
R cuFuncSetBlockShape(void *f, int x, int y, int z) { (void)f; (void)x; (void)y; (void)z; return OK; }
R cuLaunchKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                 void *s, void **params, void **extra) {
    Op o = {.kind = 2}; (void)shared;
    READY; if (!gx || !gy || !gz || bx * by * bz - 1 >= 1024) return INVALID;
    snprintf(o.name, sizeof o.name, "%s", ((Function *)f)->name);
    if (params) {
        const size_t sizes[3] = {8, 4, 4}, count = strcmp(o.name, "add_value") ? 1 : 3;
        for (size_t i = 0, at = 0; i < count; at += sizes[i++]) memcpy(o.args + at, params[i], sizes[i]);
    } else if (extra) memcpy(o.args, extra[1], *(size_t *)extra[3]);
    return put(s, o);
}
R cuGraphGetNodes(void *g, void **nodes, size_t *n) {
    size_t count = 0; READY; IS(g, GRAPH);
    for (Op *o = ((Graph *)g)->first; o; o = o->next) count++;
    (void)nodes; *n = count; return OK;
}
R cuGraphInstantiateWithFlags(void **x, void *g, unsigned long long f) {
    (void)f; UNCAPTURED; IS(g, GRAPH); Graph *made = calloc(1, sizeof *made); made->magic = EXEC; made->first = ((Graph *)g)->first;
    *x = made; live[6]++; return OK;
}
R cuGraphDestroy(void *g) { IS(g, GRAPH); *(int *)g = 0; free(g); live[5]--; return OK; }
R cuGraphExecDestroy(void *x) { IS(x, EXEC); *(int *)x = 0; free(x); live[6]--; return OK; }
R cuGraphLaunch(void *x, void *s) {
    READY; IS(x, EXEC); IS(s, STREAM);
    for (Op *o = ((Graph *)x)->first; o; o = o->next) { R r = run(o); if (r) return r; }
    return OK;
}
static const struct { int code; const char *name, *text; } ERRORS[] = {
    {OK, "CUDA_SUCCESS", "no error"}, {INVALID, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {OOM, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"}, {UNINIT, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {BAD_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {BAD_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {NO_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {BAD_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {ILLEGAL_STATE, "CUDA_ERROR_ILLEGAL_STATE", "the operation cannot be performed in the present state"},
    {NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"}, {NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
    {INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "operation failed due to a previous error during capture"},
    {CAPTURED_EVENT, "CUDA_ERROR_CAPTURED_EVENT", "operation not permitted on an event last recorded in a capturing stream"}};
static R said(int code, const char **s, int text) {
    for (size_t i = 0; i < sizeof ERRORS / sizeof *ERRORS; i++)
        if (ERRORS[i].code == code) { *s = text ? ERRORS[i].text : ERRORS[i].name; return OK; }
    *s = NULL; return INVALID;
}
R cuGetErrorName(int code, const char **s) { return said(code, s, 0); }
R cuGetErrorString(int code, const char **s) { return said(code, s, 1); }

/* How cuda-bindings finds the rest */
R cuGetProcAddress_v2(const char *name, void **f, int version, unsigned long long flags, int *status) {
    char versioned[128]; Dl_info self; (void)version; (void)flags;
    dladdr((void *)cuInit, &self);
    void *library = dlopen(self.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    if (!strcmp(name, "cuGraphInstantiate")) name = "cuGraphInstantiateWithFlags";
    snprintf(versioned, sizeof versioned, "%s_v2", name);
    *f = dlsym(library, versioned);
    if (!*f) *f = dlsym(library, name);
    if (status) *status = *f ? 0 : 1;
    return *f ? OK : NOT_FOUND;
}
