use super::*;

fn read(line: &str) -> Plan {
    plan(&line.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>())
}

fn unit(line: &str) -> Unit {
    match read(line) {
        Plan::Remote(unit) => unit,
        Plan::Local(why) => panic!("{line}: {why}"),
    }
}

#[test]
fn ordinary_command_lines_are_for_workers() {
    // command line, object, arguments of the preprocessor, arguments of the worker
    for (line, object, preprocess, compile) in [
        ("-c x.c", "x.o", "", ""),
        ("-c x.c -o x.o", "x.o", "", ""),
        ("-o x.o -c x.c", "x.o", "", ""),
        ("-ox.o -c x.c", "x.o", "", ""),
        ("-c src/dir/x.c", "x.o", "", ""),
        ("-c x.cpp -std=c++17", "x.o", "-std=c++17", "-std=c++17"),
        ("-O2 -Wall -c -o a/b.o a/b.c", "a/b.o", "-O2 -Wall", "-O2 -Wall"),
        ("-DNDEBUG -D X=1 -c x.c", "x.o", "-DNDEBUG -D X=1", ""),
        (
            "-DHAVE_CONFIG_H -I. -I.. -I ../inc -O2 -c x.c",
            "x.o",
            "-DHAVE_CONFIG_H -I. -I.. -I ../inc -O2",
            "-O2",
        ),
        (
            "-isystem /usr/inc -iquote q -idirafter/d -c x.c",
            "x.o",
            "-isystem /usr/inc -iquote q -idirafter/d",
            "",
        ),
        ("-include config.h -imacros m.h -c x.c", "x.o", "-include config.h -imacros m.h", ""),
        ("--sysroot=/s -nostdinc -c x.c", "x.o", "--sysroot=/s -nostdinc", ""),
        ("-U FOO -UBAR -undef -c x.c", "x.o", "-U FOO -UBAR -undef", ""),
        ("-pipe -fPIC -c x.c", "x.o", "-fPIC", "-fPIC"),
        ("-x c -c x.txt", "x.o", "-x c", ""),
        ("-xc++ -c x.c", "x.o", "-x c++", ""),
        ("-Wl,-rpath,/x -L/lib -L lib -lm -l z -s -rdynamic -c x.c", "x.o", "", ""),
        ("-MD -c x.c -o o/x.o", "o/x.o", "-MD -MF o/x.d -MQ o/x.o", ""),
        ("-MMD -MP -MF d/x.d -MT t -c x.c -o x.o", "x.o", "-MP -MF d/x.d -MT t -MMD", ""),
        ("-MD -MFx.d -MQ q -c x.c", "x.o", "-MF x.d -MQ q -MD", ""),
        (
            "-MT x.lo -MD -MP -MF .deps/x.Tpo -c x.c -fPIC -DPIC -o .libs/x.o",
            ".libs/x.o",
            "-MT x.lo -MP -MF .deps/x.Tpo -fPIC -DPIC -MD",
            "-fPIC",
        ),
        (
            "-std=gnu99 -O2 -Wall -Wextra -DLUA_COMPAT_5_3 -c -o lapi.o lapi.c",
            "lapi.o",
            "-std=gnu99 -O2 -Wall -Wextra -DLUA_COMPAT_5_3",
            "-std=gnu99 -O2 -Wall -Wextra",
        ),
        (
            "-march=x86-64-v2 -mtune=generic -fno-plt -fexceptions -c x.c",
            "x.o",
            "-march=x86-64-v2 -mtune=generic -fno-plt -fexceptions",
            "-march=x86-64-v2 -mtune=generic -fno-plt -fexceptions",
        ),
        (
            "-pthread -ansi -pedantic -w -c x.c",
            "x.o",
            "-pthread -ansi -pedantic -w",
            "-pthread -ansi -pedantic -w",
        ),
    ] {
        let unit = unit(line);
        assert_eq!(unit.object, Path::new(object), "{line}");
        assert_eq!(unit.preprocess.join(" "), preprocess, "{line}");
        assert_eq!(unit.compile.join(" "), compile, "{line}");
    }
}

#[test]
fn everything_else_is_for_the_local_compiler() {
    for line in
        "| -v | --version | -dumpmachine | -dumpversion | -print-prog-name=cc1 | -### | x.o -o x | x.c |
        x.c -o x | -o x x.o y.o -lm | -E x.c | -S x.c | -c | -c x.c y.c | -c x.c -E | -c x.s | -c x.S |
        -c x.i | -c x.m | -c x.h | -c x.o | -c - | -c -x c - | -x assembler -c x | -x c-header -c x.h |
        -c x.c -x c | -c x.c -o | -c x.c -o a -o b | -c x.c -I | -M x.c | -MM -c x.c | -MG -MD -c x.c |
        -MF x.d -c x.c | -c x.c -save-temps | -c x.c -save-temps=obj | -c x.c -fprofile-generate |
        -c x.c -fprofile-use=x | -c x.c --coverage | -c x.c -ftest-coverage | -c x.c -flto |
        -c x.c -flto=auto | -c x.c -fplugin=x.so | -c x.c -specs=y | -wrapper sh -c x.c | @args |
        -c x.c @more | -c x.c -Wa,-al | -c x.c -Wp,-MD,x.d | -c x.c -Xassembler -x |
        -c x.c -Xclang -load | -c x.c -Xpreprocessor -C | -c x.c -B/x | -c x.c -dD | -c x.c -dumpbase y |
        -c x.c -fdump-tree-all | -c x.c -march=native | -c x.c -mtune=native | -c x.c -g3 |
        -c x.c -ggdb3 | -c x.c -gsplit-dwarf | -c x.c -fstack-usage | -c x.c -mllvm -x | -c x.c -static |
        -c x.c -shared | -c x.c -P | -c x.c -H | -c x.c -fsyntax-only | -c x.c --param max-inline=1 |
        -c x.c -Q | -c x.c -frecord-gcc-switches | -c x.c -time | -c x.c --serialize-diagnostics x |
        -c x.c -fmodules-ts"
            .split('|')
            .map(str::trim)
    {
        assert!(matches!(read(line), Plan::Local(_)), "{line}");
    }
}

#[test]
fn what_goes_to_a_worker_is_what_a_worker_takes() {
    let unit = unit("-DX -I. -O2 -g -gno-column-info -Wall -fPIC -m64 -std=c11 -MD -MP -L. -lm -pipe -c x.c");
    assert_eq!(allow::arguments(&unit.compile), Ok(()));
}

#[test]
fn debug_information_needs_no_columns() {
    for (line, remote) in [
        ("-c x.c", true),
        ("-g -c x.c", false),
        ("-g -g0 -c x.c", true),
        ("-g0 -ggdb -c x.c", false),
        ("-gdwarf-4 -c x.c", false),
        ("-g -gno-column-info -c x.c", true),
    ] {
        assert_eq!(matches!(read(line), Plan::Remote(_)), remote, "{line}");
    }
}

#[test]
fn a_source_ending_decides_the_language_unless_told() {
    assert_eq!(unit("-c x.c").language, Language::C);
    assert_eq!(unit("-c x.cc").language, Language::Cxx);
    assert_eq!(unit("-x c++ -c x.c").language, Language::Cxx);
}
