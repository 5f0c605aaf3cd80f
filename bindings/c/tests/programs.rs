//! The programs of `tests/c`, in every standard, from both libraries, and under sanitizers.
//!
//! - `classic.c`: the interface of ESHM 1.0, promise by promise
//! - `more.c`: what came after it
//! - `death.c`: peers that are killed, stopped, forked and started again
//! - `threads.c`: threads, signals, many handles
//! - `usual.c`: the shorter way that a handle's usual thread takes
//! - `nested.c`: signal handlers inside calls, at every instruction
//! - `refused.c`: system calls that are refused later
//! - `loaded.c`: the library as a plug-in
//! - `opening.c`: how long opening waits, what it asks for, and calls with one length
//! - `trusted.c`: files of other users
//! - `plus.cpp`: the C++ header
//! - `defaults.cpp`: what a C++ program gets that says nothing

mod support;

use support::{Build, check};

macro_rules! in_every_way {
    ($($program:ident: $source:literal;)*) => {
        $(mod $program {
            use super::*;

            #[test]
            fn as_c99() {
                check($source, Build::shared("c99"));
            }

            #[test]
            fn as_c11() {
                check($source, Build::shared("c11"));
            }

            #[test]
            fn as_cpp11() {
                check($source, Build::shared("c++11"));
            }

            #[test]
            fn as_cpp17() {
                check($source, Build::shared("c++17"));
            }

            #[test]
            fn from_the_archive() {
                check($source, Build::archive("c99"));
            }

            #[test]
            fn with_nothing_shared() {
                check($source, Build::fully_static("c99"));
            }

            #[test]
            fn under_sanitizers() {
                check($source, Build::sanitized("c11"));
            }
        })*
    };
}

in_every_way! {
    classic: "classic.c";
    more: "more.c";
    death: "death.c";
    threads: "threads.c";
    usual: "usual.c";
    nested: "nested.c";
    refused: "refused.c";
    opening: "opening.c";
}

mod loaded {
    use super::*;

    #[test]
    fn as_c99() {
        check("loaded.c", Build::itself("c99"));
    }
}

/// The examples compile without a warning; those that end by themselves also run.
mod examples {
    use super::*;
    use support::{compile, run};

    #[test]
    fn master_and_slave() {
        for source in ["../../examples/master.c", "../../examples/slave.c"] {
            compile(source, Build::shared("c99"));
            compile(source, Build::shared("c++17"));
        }
    }

    #[test]
    fn zero_copy() {
        check("../../examples/zero_copy.c", Build::sanitized("c11"));
    }

    #[test]
    fn bench() {
        let Some(program) = compile("../../examples/bench.c", Build::shared("c11")) else { return };
        let said = run(&program, &["20000", "200"]);
        assert!(said.contains("20000 messages of 48 bytes, all arrived in order"), "{said}");
    }
}

mod trusted {
    use super::*;

    #[test]
    fn as_c99() {
        // SAFETY: asks who this is.
        if unsafe { libc::geteuid() } != 0 {
            return support::say_missing("it makes files of other users, and so needs root");
        }
        check("trusted.c", Build::shared("c99"));
    }
}

macro_rules! in_cpp {
    ($($program:ident: $source:literal;)*) => {
        $(mod $program {
            use super::*;

            #[test]
            fn as_cpp17() {
                check($source, Build::shared("c++17"));
            }

            #[test]
            fn as_cpp20() {
                check($source, Build::shared("c++20"));
            }

            #[test]
            fn with_nothing_shared() {
                check($source, Build::fully_static("c++17"));
            }

            #[test]
            fn under_sanitizers() {
                check($source, Build::sanitized("c++17"));
            }
        })*
    };
}

in_cpp! {
    plus: "plus.cpp";
    defaults: "defaults.cpp";
}
