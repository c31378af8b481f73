//! What needs pkg-config, CMake and clang.

use crate::programs::{
    build, check_classes, check_describe, check_server_loop, check_warnings, compiler, example,
};
use crate::{folder, installed, run};
use std::process::Command;

/// What pkg-config says; it puts a backslash before each space of a name.
fn pkg_config(arguments: &[&str]) -> Vec<String> {
    let mut command = Command::new("pkg-config");
    command.args(arguments).env("PKG_CONFIG_PATH", installed("lib/pkgconfig"));
    let said = run(&mut command).trim().replace("\\ ", "\0");
    said.split_whitespace().map(|flag| flag.replace('\0', " ")).collect()
}

#[test]
fn examples_are_built_with_pkg_config() {
    assert_eq!(pkg_config(&["--modversion", "pyrex"]), [env!("CARGO_PKG_VERSION")]);
    let mut all_static = pkg_config(&["--cflags", "--libs", "--static", "pyrex"]);
    all_static.push("-static".to_owned());
    for (how, flags) in [
        ("shared", pkg_config(&["--cflags", "--libs", "pyrex"])),
        ("static", pkg_config(&["--cflags", "--libs", "pyrex-static"])),
        ("all-static", all_static),
    ] {
        let name = |program: &str| format!("{program}-pkg-config-{how}");
        let sources = [example("c/describe.c")];
        check_describe(&build(compiler("gcc", "c99"), &sources, &flags, &name("describe")));
        let sources = [example("cpp/describe.cpp")];
        check_describe(&build(compiler("g++", "c++17"), &sources, &flags, &name("describe-cpp")));
        let sources = [example("c/server_loop.c")];
        check_server_loop(&build(compiler("gcc", "c99"), &sources, &flags, &name("server-loop")));
    }
}

#[test]
fn examples_are_built_with_cmake() {
    for target in ["pyrex::pyrex", "pyrex::pyrex_static"] {
        let built = folder().join(format!("cmake-{}", target.replace(':', "")));
        let mut configure = Command::new("cmake");
        configure.arg("-S").arg(example("")).arg("-B").arg(&built);
        configure.arg(format!("-DCMAKE_PREFIX_PATH={}", installed("").display()));
        run(configure.arg(format!("-DPYREX_TARGET={target}")));
        run(Command::new("cmake").arg("--build").arg(&built));
        check_describe(&built.join("describe"));
        check_describe(&built.join("describe_cpp"));
        check_server_loop(&built.join("server_loop"));
    }
}

#[test]
fn cmake_refuses_a_version_that_is_not_there() {
    for (version, is_found) in [("0.1", true), ("0.1.0 EXACT", true), ("0.2", false), ("1.0", false)] {
        let project = folder().join(format!("cmake-version-{}", version.replace(' ', "-")));
        std::fs::create_dir_all(&project).unwrap();
        let list = format!(
            "cmake_minimum_required(VERSION 3.16)\nproject(asks LANGUAGES C)\nfind_package(pyrex {version})\n\
             if(NOT pyrex_FOUND)\n  message(FATAL_ERROR \"not found\")\nendif()\n"
        );
        std::fs::write(project.join("CMakeLists.txt"), list).unwrap();
        let mut cmake = Command::new("cmake");
        cmake.arg("-S").arg(&project).arg("-B").arg(project.join("build"));
        cmake.arg(format!("-DCMAKE_PREFIX_PATH={}", installed("").display()));
        assert_eq!(cmake.output().unwrap().status.success(), is_found, "{version}");
    }
}

#[test]
fn the_classes_do_what_they_say_with_clang() {
    check_classes("clang++", &pkg_config(&["--cflags", "--libs", "pyrex"]));
    check_warnings("clang++");
}
