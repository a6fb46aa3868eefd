use super::*;
use crate::args::{Plan, plan};
use crate::job::Language;
use crate::preprocess::preprocess;

async fn compiler() -> Compiler {
    Compiler::find("cc").await.expect("a C compiler")
}

fn job(compiler: &Compiler, args: &str, source: &str) -> Compile {
    Compile {
        compiler: compiler.identity,
        language: Language::C,
        args: args.split_ascii_whitespace().map(str::to_owned).collect(),
        source_date_epoch: None,
        source: Payload::from(source.as_bytes().to_vec()),
    }
}

async fn compile(args: &str, source: &str, limits: &Limits) -> Result<Object, Refusal> {
    let (compiler, scratch) = (compiler().await, tempfile::tempdir().expect("a folder"));
    let result = run(&compiler, &job(&compiler, args, source), limits, scratch.path()).await;
    let left = std::fs::read_dir(scratch.path()).expect("the folder").count();
    assert_eq!(left, 0, "a job leaves nothing behind");
    result
}

const SOURCE: &str = r#"
#include <stdio.h>
#include <stddef.h>
#define TWICE(x) ((x) + (x))
#define MANY(a, b) do { \
    printf("%s %d\n", a, TWICE(b)); \
} while (0)
static int table[] = { [3] = TWICE(4), 5 };
struct point { int x, y; };
int sum(struct point *p, size_t n) {
    int total = 0;
    for (size_t i = 0; i < n; i++) { total += TWICE(p[i].x) - p[i].y + table[i & 3]; }
    MANY(__FILE__,
         total);
    return total + __LINE__;
}
"#;

/// The object of a local compile and that of preprocessing here and compiling in the sandbox.
async fn both(line: &str, name: &str, text: &str) -> (Vec<u8>, Object) {
    let (compiler, folder) = (compiler().await, tempfile::tempdir().expect("a folder"));
    let scratch = tempfile::tempdir().expect("another folder");
    std::fs::write(folder.path().join(name), text).expect("a source");
    let args: Vec<String> =
        line.split_ascii_whitespace().chain(["-c", name, "-o", "local.o"]).map(str::to_owned).collect();
    let status =
        std::process::Command::new(&compiler.program).args(&args).current_dir(folder.path()).status();
    assert!(status.expect("a compiler").success(), "{line}");
    let local = std::fs::read(folder.path().join("local.o")).expect("an object");
    let Plan::Remote(unit) = plan(&args) else { panic!("{line} stays local") };
    let preprocessed = preprocess(&compiler, &unit, Some(folder.path())).await.expect(line);
    let remote = run(&compiler, &preprocessed.job, &Limits::default(), scratch.path()).await.expect(line);
    (local, remote)
}

#[tokio::test]
async fn an_object_is_the_one_a_local_compile_makes() {
    for line in [
        "",
        "-O2",
        "-O0 -fPIC -Wall",
        "-O3 -std=gnu99 -fno-inline -DX=1",
        "-Os -ffunction-sections -fdata-sections",
        "-O2 -g -gno-column-info",
        "-g -gno-column-info -O0 -Wall -Wextra",
        "-ggdb -O1 -fPIC -gno-column-info",
        "-gdwarf-4 -gno-column-info -O2 -pthread",
        "-g1 -gno-column-info -O2 -std=c11",
        "-g -gno-column-info -O2 -fdebug-prefix-map=/tmp=/x",
    ] {
        let (local, remote) = both(line, "x.c", SOURCE).await;
        assert_eq!((remote.exit_code, remote.object.is_empty()), (0, false), "{line}");
        assert!(remote.object[..] == local[..], "{line}: the objects differ");
    }
}

#[tokio::test]
async fn an_error_has_the_compilers_text_and_code() {
    let object = compile("-O2", "# 1 \"x.c\"\nint f(void) { return nothing; }\n", &Limits::default()).await;
    let object = object.expect("an answer");
    let text = String::from_utf8_lossy(&object.stderr).into_owned();
    assert_eq!(object.exit_code, 1);
    assert!(text.contains("x.c:1:") && text.contains("nothing"), "{text}");
    assert!(object.object.is_empty());
}

#[tokio::test]
async fn a_warning_comes_with_the_object() {
    let source = "# 1 \"x.c\"\nint f(void) { int unused; return 0; }\n";
    let object = compile("-Wall", source, &Limits::default()).await.expect("an answer");
    assert_eq!(object.exit_code, 0);
    assert!(String::from_utf8_lossy(&object.stderr).contains("unused"));
}

#[tokio::test]
async fn arguments_and_sources_are_checked_here_too() {
    let limits = Limits::default();
    let refused = compile("-fplugin=x.so", "int x;", &limits).await;
    assert!(matches!(refused, Err(Refusal::Argument(_))), "{refused:?}");
    let refused = compile("-O2", "asm(\".incbin \\\"/etc/hostname\\\"\");", &limits).await;
    assert!(matches!(refused, Err(Refusal::Source(_))), "{refused:?}");
}

#[tokio::test]
async fn directives_in_expanded_text_are_not_obeyed() {
    let object =
        compile("", "#include \"/etc/hostname\"\nint x;\n", &Limits::default()).await.expect("an answer");
    assert_ne!(object.exit_code, 0, "the compiler read a file");
}

#[tokio::test]
async fn a_diagnostic_quotes_no_file_of_the_worker() {
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "what only this account reads\n").expect("a file");
    let source = format!("# 1 \"{}\"\nint x = ;\n", secret.display());
    for args in ["", "-fdiagnostics-show-caret"] {
        let object = compile(args, &source, &Limits::default()).await.expect("an answer");
        let text = String::from_utf8_lossy(&object.stderr).into_owned();
        assert_eq!(object.exit_code, 1);
        assert!(text.contains("secret:1:") && !text.contains("account"), "{text}");
    }
}

/// Takes a compiler very long: 64 initialised bytes become 2^30.
const BOMB: &str = "char big[1 << 30] = { [0 ... (1 << 30) - 1] = 1 };\n";

#[tokio::test]
async fn a_compile_bomb_meets_a_limit() {
    let short = Limits { wall: Duration::from_secs(1), ..Limits::default() };
    let refused = compile("-O0", BOMB, &short).await;
    assert!(matches!(refused, Err(Refusal::Limit(_))), "wall time: {refused:?}");
    let small = Limits { file: 1 << 20, ..Limits::default() };
    let refused = compile("-O0", "char big[8 << 20] = { 1 };\n", &small).await;
    assert!(refused.as_ref().map_or(true, |object| object.exit_code != 0), "file size: {refused:?}");
    let narrow = Limits { memory: 24 << 20, ..Limits::default() };
    let refused = compile("-O2", "int x;\n", &narrow).await;
    assert!(refused.as_ref().map_or(true, |object| object.exit_code != 0), "memory: {refused:?}");
    let quiet = Limits { diagnostics: 100, ..Limits::default() };
    let refused = compile("-O2", &"nonsense;\n".repeat(50), &quiet).await;
    assert!(matches!(refused, Err(Refusal::Limit(_))), "diagnostics: {refused:?}");
}

#[tokio::test]
async fn a_cancelled_compile_is_killed_with_its_folder() {
    let (compiler, scratch) = (compiler().await, tempfile::tempdir().expect("a folder"));
    let job = job(&compiler, "-O0", BOMB);
    let limits = Limits::default();
    let running = run(&compiler, &job, &limits, scratch.path());
    let cancelled = tokio::time::timeout(Duration::from_millis(700), running).await;
    assert!(cancelled.is_err(), "the bomb is not large enough: {cancelled:?}");
    let left: Vec<_> = std::fs::read_dir(scratch.path()).expect("the folder").flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}
