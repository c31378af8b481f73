//! A C program that calls every function of include/pyrex.h with every kind of wrong argument, written from the header, so
//! that none can be forgotten.
//!
//! The valid arguments are in tests/c/fixtures.h; what may be wrong about one depends on its type alone.

use std::collections::HashSet;
use std::fmt::Write;

/// Pointers that may be NULL. All others are refused with `PYREX_NULL_ARGUMENT`.
const OPTIONAL: [&str; 9] = [
    "options",
    "num_cut_off",
    "text_len",
    "num_image_tokens",
    "user_data",
    "notify",
    "noise",
    "num_tensors",
    "num_failures",
];

/// A function of the header.
pub(crate) struct Function {
    /// Its name.
    pub(crate) name: String,
    returns: String,
    parameters: Vec<Parameter>,
}

struct Parameter {
    name: String,
    /// Without spaces around its stars, such as `const char*`.
    type_name: String,
}

/// The functions that a header declares.
pub(crate) fn functions(header: &str) -> Vec<Function> {
    let (_, declarations) = header.split_once("extern \"C\" {").expect("the header is for C++ too");
    let (declarations, _) = declarations.split_once("#ifdef").expect("the block ends");
    let code = without_comments(declarations);
    let code = code.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join(" ");
    code.split(';').filter(|it| !it.trim().is_empty()).map(function).collect()
}

fn without_comments(text: &str) -> String {
    let mut parts = text.split("/*");
    let before = parts.next().unwrap_or_default().to_owned();
    parts.fold(before, |code, part| code + part.split_once("*/").expect("a comment ends").1)
}

fn function(declaration: &str) -> Function {
    let (head, parameters) = declaration.trim().split_once('(').expect("a function has parameters");
    let parameters = parameters.trim_end().strip_suffix(')').expect("parameters end");
    let Parameter { name, type_name: returns } = parameter(head);
    let parameters = match parameters {
        "void" => Vec::new(),
        some => some.split(',').map(parameter).collect(),
    };
    Function { name, returns, parameters }
}

/// A name behind its type.
fn parameter(text: &str) -> Parameter {
    let text = text.trim();
    let name_at = text.rfind(|c: char| !c.is_alphanumeric() && c != '_').expect("a type and a name") + 1;
    let words: Vec<&str> = text[..name_at].split_whitespace().collect();
    Parameter { name: text[name_at..].to_owned(), type_name: words.join(" ").replace(" *", "*") }
}

impl Parameter {
    fn is_pointer(&self) -> bool {
        self.type_name.ends_with('*') || self.type_name.ends_with("_fn")
    }

    /// The type of the object whose pointer goes here, if a new one does.
    fn new_object(&self) -> Option<&str> {
        self.type_name.strip_suffix("**").filter(|of| !of.starts_with("const ") && *of != "void")
    }

    fn may_be_null(&self) -> bool {
        OPTIONAL.contains(&self.name.as_str()) && self.new_object().is_none() && self.type_name != "void**"
    }

    /// Whether this says how long what another points to is.
    fn is_length(&self) -> bool {
        self.type_name == "size_t" && self.name != "tensor_idx"
    }

    /// What is wrong in itself, as C writes it.
    fn wrong(&self) -> &'static [&'static str] {
        match self.type_name.as_str() {
            _ if self.is_length() => &["0", "SIZE_MAX"],
            "size_t" => &["0", "1", "SIZE_MAX / 2", "SIZE_MAX"],
            "int32_t" => &["0", "-1", "INT32_MIN", "INT32_MAX"],
            "int64_t" => &["0", "-1", "-2", "INT64_MIN", "INT64_MAX"],
            "uint32_t" => &["0", "1", "UINT32_MAX"],
            "uint64_t" => &["0", "1", "UINT64_MAX"],
            "float" | "double" => &["0", "-1", "NAN", "INFINITY", "-INFINITY"],
            "const char*" => &["\"\"", "\"\\xff\\xfe\"", "long_text"],
            _ => &[],
        }
    }

    /// The name of the struct that begins with its size, if this points to one.
    fn growing(&self, growing: &HashSet<String>) -> Option<&str> {
        let of = self.type_name.strip_suffix('*')?;
        let of = of.strip_prefix("const ").unwrap_or(of);
        growing.contains(of).then_some(of)
    }
}

/// The structs of a header that begin with their size.
fn growing(header: &str) -> HashSet<String> {
    let code = without_comments(header);
    let structs = code.split("typedef struct {").skip(1).filter_map(|it| it.split_once('}'));
    let growing = structs.filter(|(fields, _)| fields.trim_start().starts_with("size_t struct_size;"));
    growing.map(|(_, name)| name.trim_start().split(';').next().unwrap_or_default().to_owned()).collect()
}

/// The program. A parameter for which `fixtures` has no value is an error that names it.
pub(crate) fn program(header: &str, fixtures: &str) -> Result<String, String> {
    let fixtures: HashSet<&str> =
        fixtures.lines().filter_map(|line| line.strip_prefix("#define VALID_")?.split(' ').next()).collect();
    let writer = Writer { fixtures, growing: growing(header) };
    let functions = functions(header);
    let mut code = "#include \"fixtures.h\"\n".to_owned();
    for function in &functions {
        code += &writer.cases(function)?;
    }
    code += "\nint main(int argc, char **argv) {\n  set_up(argc, argv);\n";
    for Function { name, .. } in &functions {
        writeln!(code, "  call_{name}();").expect("a string grows");
    }
    Ok(code + "  tear_down();\n  return 0;\n}\n")
}

struct Writer<'a> {
    fixtures: HashSet<&'a str>,
    growing: HashSet<String>,
}

impl Writer<'_> {
    fn valid(&self, function: &Function, parameter: &Parameter) -> Result<String, String> {
        let Parameter { name, type_name } = parameter;
        if let Some(object) = parameter.new_object() {
            return Ok(format!("&new_{object}"));
        }
        let own = format!("{}_{name}", function.name);
        match [own.as_str(), name].into_iter().find(|it| self.fixtures.contains(it)) {
            Some(found) => Ok(format!("VALID_{found}")),
            None => Err(format!("{} takes a {type_name} {name}: tests/c/fixtures.h has none", function.name)),
        }
    }

    fn cases(&self, function: &Function) -> Result<String, String> {
        let valid = function.parameters.iter().map(|parameter| self.valid(function, parameter));
        let valid: Vec<String> = valid.collect::<Result<_, _>>()?;
        let mut code = format!("\nstatic void call_{}(void) {{\n", function.name);
        code += &call(function, "valid arguments", "", &valid, Expected::Works);
        let nulls: Vec<String> = function.parameters.iter().zip(&valid).map(null_if_pointer).collect();
        if nulls != valid {
            code +=
                &call(function, "every pointer NULL", "", &nulls, Expected::of_null(&function.parameters));
        }
        for (idx, parameter) in function.parameters.iter().enumerate() {
            let with = |value: &str| {
                let mut arguments = valid.clone();
                arguments[idx] = value.to_owned();
                arguments
            };
            let mut add = |what: &str, setup: &str, arguments: &[String], expected| {
                let what = format!("{} is {what}", parameter.name);
                code += &call(function, &what, setup, arguments, expected);
            };
            if parameter.is_pointer() {
                add("NULL", "", &with("NULL"), Expected::of_null(std::slice::from_ref(parameter)));
            }
            for value in parameter.wrong() {
                add(&value.replace(['"', '\\'], "'"), "", &with(value), Expected::Known);
            }
            if parameter.growing(&self.growing).is_some() {
                let fixture = format!("({})", valid[idx]);
                for size in ["0", "7", "SIZE_MAX"] {
                    let setup = format!("{fixture}->struct_size = {size};");
                    add(&format!("of size {size}"), &setup, &valid, Expected::Refused);
                }
                if !parameter.type_name.starts_with("const ") {
                    let rest = format!("sizeof *{fixture} - sizeof(size_t)");
                    let setup = format!("memset((char *){fixture} + sizeof(size_t), 0xff, {rest});");
                    add("full of ones", &setup, &valid, Expected::Works);
                }
            }
        }
        Ok(code + "}\n")
    }
}

fn null_if_pointer((parameter, valid): (&Parameter, &String)) -> String {
    if parameter.is_pointer() { "NULL".to_owned() } else { valid.clone() }
}

/// What a call has to give.
#[derive(Clone, Copy, PartialEq)]
enum Expected {
    Works,
    Null,
    Refused,
    Known,
}

impl Expected {
    /// What it gives if these are NULL.
    fn of_null(parameters: &[Parameter]) -> Self {
        let mut pointers = parameters.iter().filter(|parameter| parameter.is_pointer());
        if pointers.any(|parameter| !parameter.may_be_null()) { Self::Null } else { Self::Works }
    }
}

/// One call in C, and the checks behind it.
fn call(function: &Function, what: &str, setup: &str, arguments: &[String], expected: Expected) -> String {
    let Function { name, returns, parameters } = function;
    let call = format!("{name}({})", arguments.join(", "));
    let begin = format!("  begin(\"{name}: {what}\");\n  {setup}\n");
    let checked = match returns.as_str() {
        "void" => format!("  {call};\n"),
        "const char*" => format!("  CHECK({call} != NULL);\n"),
        "uint32_t" => format!("  CHECK({call} > 0);\n"),
        _ => {
            let check = match expected {
                Expected::Works => "check_works(",
                Expected::Null => "check_is(PYREX_NULL_ARGUMENT, ",
                Expected::Refused => "check_is(PYREX_INVALID_REQUEST, ",
                Expected::Known => "check_known(",
            };
            let mut code =
                format!("  {{\n  int32_t status = {call};\n  {check}status);\n  check_known(status);\n");
            let given = parameters.iter().zip(arguments).filter(|(_, argument)| *argument != "NULL");
            for object in given.filter_map(|(parameter, _)| parameter.new_object()) {
                writeln!(code, "  CHECK_MADE({object}, status);").expect("a string grows");
            }
            code + "  }\n"
        }
    };
    format!("{begin}{checked}  release();\n")
}
