//! The compiler arguments a worker runs. A list of what is allowed, never of what is forbidden: an argument
//! nobody thought of (`-wrapper`, `-fplugin=`, `-specs=`, `@file`, `-B`) would run foreign code or read foreign
//! files.

/// Most arguments of one job.
pub(crate) const ARGUMENTS_MAX: usize = 512;
/// Most bytes of one argument.
pub(crate) const ARGUMENT_BYTES_MAX: usize = 1024;

/// Arguments that stand for themselves.
const EXACT: &str = "
    -O -O0 -O1 -O2 -O3 -Os -Og -Oz -Ofast -g -g0 -g1 -g2 -ggdb -ggdb0 -ggdb1 -ggdb2 -gdwarf -gdwarf-2
    -gdwarf-3 -gdwarf-4 -gdwarf-5 -gstrict-dwarf -gno-strict-dwarf -gcolumn-info -gno-column-info
    -ginline-points -gno-inline-points -gvariable-location-views -gno-variable-location-views
    -gstatement-frontiers -gno-statement-frontiers -gpubnames -gno-pubnames -gz -gz=none -gz=zlib
    -gz=zstd -w -ansi -pedantic -pedantic-errors -pthread -pg";

/// `-fNAME`, and `-fno-NAME`.
const F_FLAGS: &str = "
    PIC PIE access-control aggressive-loop-optimizations align-functions align-jumps align-labels
    align-loops asm associative-math asynchronous-unwind-tables auto-inc-dec builtin caller-saves char8_t
    coalesce-vars code-hoisting combine-stack-adjustments common concepts cond-mismatch conserve-stack
    coroutines cprop-registers crossjumping cx-limited-range data-sections dce defer-pop
    delete-null-pointer-checks devirtualize diagnostics-show-caret diagnostics-show-option
    dollars-in-identifiers dse eliminate-unused-debug-symbols eliminate-unused-debug-types
    enforce-eh-specs exceptions expensive-optimizations fast-math finite-loops finite-math-only
    float-store forward-propagate freestanding function-sections gcse gcse-after-reload gcse-las gcse-lm
    gcse-sm gnu-tm gnu-unique gnu89-inline graphite-identity hosted if-conversion if-conversion2
    implicit-inline-templates implicit-templates indirect-inlining inline inline-functions
    inline-functions-called-once inline-small-functions ipa-cp ipa-cp-clone ipa-icf ipa-icf-functions
    ipa-icf-variables ipa-modref ipa-pta ipa-pure-const ipa-ra ipa-reference ipa-sra ipa-stack-alignment
    ipa-vrp ira-hoist-pressure ira-loop-pressure isolate-erroneous-paths-dereference ivopts jump-tables
    keep-inline-functions keep-static-consts keep-static-functions lax-vector-conversions
    leading-underscore limit-function-alignment live-range-shrinkage loop-interchange loop-nest-optimize
    loop-unroll-and-jam math-errno merge-all-constants merge-constants modulo-sched move-loop-invariants
    move-loop-stores ms-extensions new-ttp-matching non-call-exceptions nonansi-builtins nothrow-opt
    omit-frame-pointer openmp openmp-simd operator-names optimize-sibling-calls optimize-strlen
    optional-diags pack-struct partial-inlining peel-loops peephole peephole2 permissive pic pie
    plan9-extensions plt pre-ipa-opts predictive-commoning prefetch-loop-arrays pretty-templates
    printf-return-value reciprocal-math reg-struct-return rename-registers reorder-blocks
    reorder-blocks-and-partition reorder-functions rerun-cse-after-loop reschedule-modulo-scheduled-loops
    rounding-math rtti sched-interblock sched-pressure sched-spec schedule-insns schedule-insns2
    section-anchors semantic-interposition short-enums short-wchar shrink-wrap shrink-wrap-separate
    signaling-nans signed-bitfields signed-char signed-zeros single-precision-constant sized-deallocation
    split-ivs-in-unroller split-loops split-paths split-wide-types ssa-backprop ssa-phiopt stack-check
    stack-clash-protection stack-protector stack-protector-all stack-protector-explicit
    stack-protector-strong stdarg-opt store-merging strict-aliasing strict-enums strict-overflow
    strict-volatile-bitfields strong-eval-order thread-jumps threadsafe-statics
    toplevel-reorder trapping-math trapv tree-bit-ccp tree-builtin-call-dce tree-ccp tree-ch
    tree-coalesce-vars tree-copy-prop tree-dce tree-dominator-opts tree-dse tree-forwprop tree-fre
    tree-loop-distribute-patterns tree-loop-distribution tree-loop-if-convert tree-loop-im
    tree-loop-ivcanon tree-loop-linear tree-loop-optimize tree-loop-vectorize tree-partial-pre
    tree-phiprop tree-pre tree-pta tree-reassoc tree-scev-cprop tree-sink tree-slp-vectorize tree-slsr
    tree-sra tree-switch-conversion tree-tail-merge tree-ter tree-vectorize tree-vrp
    unconstrained-commons unit-at-a-time unroll-all-loops unroll-loops unsafe-math-optimizations
    unsigned-bitfields unsigned-char unswitch-loops unwind-tables use-cxa-atexit var-tracking
    var-tracking-assignments variable-expansion-in-unroller vect-cost-model verbose-asm
    version-loops-for-strides visibility-inlines-hidden visibility-ms-compat vpt web working-directory
    wrapv wrapv-pointer zero-initialized-in-bss";

/// `-fNAME=VALUE` whose value is a word.
const F_VALUES: &str = "
    abi-version align-functions align-jumps align-labels align-loops cf-protection constexpr-depth
    constexpr-loop-limit constexpr-ops-limit diagnostics-color diagnostics-urls excess-precision
    fp-contract fp-model inline-limit lifetime-dse max-errors message-length pack-struct
    patchable-function-entry sanitize sanitize-recover simd-cost-model stack-check stack-limit-register
    stack-reuse strong-eval-order template-depth tls-model trivial-auto-var-init tabstop vect-cost-model
    visibility zero-call-used-regs";

/// `-fNAME=TEXT` whose text is printed or mapped, and never opened as a file.
const F_TEXTS: &str = "
    debug-prefix-map file-prefix-map macro-prefix-map random-seed";

/// `-mNAME=VALUE`.
const M_VALUES: &str = "
    abi align-data arch asm-syntax branch-cost branch-protection cmodel cpu float-abi fpmath fpu
    function-return harden-sls indirect-branch isa-spec large-data-threshold memcpy-strategy
    memset-strategy move-max preferred-stack-boundary prefer-vector-width recip regparm
    stack-protector-guard stack-protector-guard-offset stack-protector-guard-reg store-max
    stringop-strategy strict-align tls-dialect tune";

/// `-mNAME`, and `-mno-NAME`.
const M_FLAGS: &str = "
    128bit-long-double 16 3dnow 32 64 80387 96bit-long-double abm accumulate-outgoing-args adx aes
    align-double avx avx2 avx512bf16 avx512bitalg avx512bw avx512cd avx512dq avx512er avx512f avx512fp16
    avx512ifma avx512pf avx512vbmi avx512vbmi2 avx512vl avx512vnni avx512vp2intersect avx512vpopcntdq
    avxvnni bmi bmi2 cld clflushopt clwb crc32 cx16 f16c fancy-math-387 fentry fix-cortex-a53-835769
    fix-cortex-a53-843419 fma fma4 fsgsbase fxsr general-regs-only gfni glibc hle hard-float ieee-fp
    indirect-branch-register inline-all-stringops inline-stringops-dynamically lzcnt manual-endbr mmx
    movbe movdir64b movdiri mwaitx nop-mcount omit-leaf-frame-pointer outline-atomics pclmul pku popcnt
    prefetchwt1 push-args rdpid rdrnd rdseed record-mcount red-zone relax rtm sahf save-restore sgx sha
    shstk skip-rax-setup soft-float sse sse2 sse2avx sse3 sse4 sse4.1 sse4.2 sse4a sseregparm ssse3
    stackrealign strict-align stv tbm thumb arm tls-direct-seg-refs unaligned-access vaes
    vect8-ret-in-mem vpclmulqdq vzeroupper waitpkg wbnoinvd x32 xop xsave xsavec xsaveopt xsaves";

/// Whether a worker runs a compiler with `arg`.
///
/// # Errors
///
/// Why not, in words for a person.
pub(crate) fn argument(arg: &str) -> Result<(), String> {
    if arg.len() > ARGUMENT_BYTES_MAX {
        return Err(format!("longer than {ARGUMENT_BYTES_MAX} bytes"));
    }
    if listed(EXACT, arg) || standard(arg) || warning(arg) || feature(arg) || machine(arg) {
        return Ok(());
    }
    if matches!(arg, "-march=native" | "-mtune=native" | "-mcpu=native") {
        return Err(format!("{arg} means another machine there"));
    }
    Err(format!("{} is not on the list", arg.escape_debug()))
}

/// Whether a worker runs a compiler with `args`.
///
/// # Errors
///
/// Why not, in words for a person.
pub(crate) fn arguments(args: &[String]) -> Result<(), String> {
    if args.len() > ARGUMENTS_MAX {
        return Err(format!("more than {ARGUMENTS_MAX} arguments"));
    }
    args.iter().try_for_each(|arg| argument(arg))
}

fn listed(list: &str, name: &str) -> bool {
    list.split_ascii_whitespace().any(|item| item == name)
}

fn word(text: &str, extra: &[u8]) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || extra.contains(&b))
}

fn standard(arg: &str) -> bool {
    arg.strip_prefix("-std=").is_some_and(|name| word(name, b"+:"))
}

// No comma: -Wa, -Wl, and -Wp, hand their text to another program.
fn warning(arg: &str) -> bool {
    arg.strip_prefix("-W").is_some_and(|name| word(name, b"-+=#"))
}

fn feature(arg: &str) -> bool {
    let Some(name) = arg.strip_prefix("-f") else { return false };
    match name.split_once('=') {
        None => listed(F_FLAGS, name.strip_prefix("no-").unwrap_or(name)),
        Some((name, value)) if listed(F_TEXTS, name) => {
            value.bytes().all(|b| b == b' ' || b.is_ascii_graphic())
        }
        Some((name, value)) => {
            listed(F_VALUES, name.strip_prefix("no-").unwrap_or(name)) && word(value, b"-+_,.")
        }
    }
}

fn machine(arg: &str) -> bool {
    let Some(name) = arg.strip_prefix("-m") else { return false };
    match name.split_once('=') {
        None => listed(M_FLAGS, name.strip_prefix("no-").unwrap_or(name)),
        Some((name, value)) => listed(M_VALUES, name) && word(value, b"-+_,.:!") && value != "native",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_code_generation_is_allowed() {
        for arg in "
            -O2 -g -std=gnu99 -std=c++20 -Wall -Wno-unused-parameter -Werror=format=2 -w
            -Wframe-larger-than=1024 -fPIC -fno-strict-aliasing -fstack-protector-strong
            -fvisibility=hidden -fno-pie -ffunction-sections -m64 -march=x86-64-v3 -mno-red-zone -msse4.2
            -mtune=generic -pthread -ansi -pedantic -fcf-protection=full -fsanitize=address,undefined
            -fno-sanitize-recover=all -mcmodel=kernel"
            .split_ascii_whitespace()
            .chain(["-fdebug-prefix-map=/a b=."])
        {
            assert_eq!(argument(arg), Ok(()), "{arg}");
        }
    }

    #[test]
    fn what_runs_or_reads_or_writes_foreign_things_is_refused() {
        for arg in "
            -fplugin=x.so -fplugin=/tmp/x.so -fplugin-arg-x-y=z -specs=x --specs=x -wrapper -wrapper,sh
            @file -B -B/tmp -B. -Xassembler -Xpreprocessor -Xlinker -Xclang -Wa,-I/etc -Wl,-rpath,/x
            -Wp,-MD,/etc/x -W,x -include -include/etc/passwd -imacros -I/etc -I -iquote -isystem -D__X -o
            -o/etc/x -x -xc -c -S -E -save-temps -save-temps=obj -dumpbase -dumpdir -dD -da
            -fdump-tree-all -fdump-rtl-all=/etc/x -fprofile-use=/etc/x -fprofile-generate -fprofile-arcs
            --coverage -ftest-coverage -fauto-profile=/etc/x -fstack-usage -fcallgraph-info
            -fopt-info-all=x -fsave-optimization-record -flto -flto=auto -flto=jobserver -fuse-ld=/x
            -fmodules -fmodule-mapper=|sh -fmodules-ts -fpch-preprocess -fpch-deps -fada-spec-parent=x
            -fdiagnostics-format=sarif-file -fdiagnostics-color=al/x -fsanitize-blacklist=/etc/x
            -fcompare-debug=x -frecord-gcc-switches -fworking-directory=x -mllvm -mllvm=x -march=native
            -mtune=native -mcpu=native -march= -march=a/b -mexec -gsplit-dwarf -g3 -ggdb3 -gz=/x --param
            --param=x --sysroot=/x -L. -lm -l:x -nostdinc -v -### -Q -time=x --help --version -M -MD -MF
            -MF/etc/x -T -Tx -u -idirafter/x --config=x -ivfsoverlay -load -cc1 -cc1as -std= -std=/x in.c
            /etc/passwd - -- -O9x -fno- -f -m -W"
            .split_ascii_whitespace()
            .chain(["", "-Wall /x", "-W\u{e9}"])
        {
            assert!(argument(arg).is_err(), "{arg:?} got through");
        }
    }

    #[test]
    fn there_is_a_bound_on_number_and_length() {
        assert!(argument(&format!("-W{}", "a".repeat(ARGUMENT_BYTES_MAX))).is_err());
        assert!(arguments(&vec!["-O2".to_owned(); ARGUMENTS_MAX]).is_ok());
        assert!(arguments(&vec!["-O2".to_owned(); ARGUMENTS_MAX + 1]).is_err());
    }
}
