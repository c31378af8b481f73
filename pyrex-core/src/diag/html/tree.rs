//! The tensors as a tree of modules, each as far off as the worst inside of it.

use super::text::{Text, counted, shape, short};
use super::view::{Entry, View};
use crate::diag::bisect::words::error_of;
use crate::diag::compare::Outcome;
use std::collections::HashMap;
use std::fmt::{self, Write};

/// Parts of a name that become branches: a file may name a tensor with thousands of dots.
const MAX_DEPTH: usize = 12;
/// The first of those that diverge are in sight when the page opens; after them all else usually diverges too.
const MAX_OPEN: usize = 24;

/// A module, or a tensor that stands alone.
#[derive(Default)]
struct Node<'a> {
    name: &'a str,
    children: Vec<Child<'a>>,
    by_name: HashMap<&'a str, usize>,
    /// The worst inside.
    worst: Option<&'a Entry<'a>>,
    num_tensors: usize,
    num_diverging: usize,
    /// Whether something inside is to be in sight.
    open: bool,
}

enum Child<'a> {
    Module(Node<'a>),
    Tensor(&'a Entry<'a>),
}

/// Draws the tree of one view.
pub(super) fn draw(page: &mut String, view: &View<'_>) -> fmt::Result {
    let mut root = Node::default();
    let mut num_open = 0;
    for (idx, entry) in view.entries.iter().enumerate() {
        num_open += usize::from(entry.diverges);
        let open = view.finger == Some(idx) || entry.diverges && num_open <= MAX_OPEN;
        root.add(entry, entry.compared.name.splitn(MAX_DEPTH, '.'), open);
    }
    let finger = view.finger.and_then(|finger| view.entries.get(finger));
    let with_origin = if view.entries.iter().any(|entry| entry.origin.is_some()) { " origins" } else { "" };
    writeln!(page, "<div class=\"tree{with_origin}\">")?;
    writeln!(
        page,
        "<div class=\"row head\" aria-hidden=\"true\"><b>tensor</b><i>error</i><span>cosine</span><span>rel L2</span>\
         <span>max abs</span><span>verdict</span><span>shape</span><span>shown by</span></div>"
    )?;
    Drawing { page, id: view.id, finger, num_tensors: root.num_tensors }.children(&root)?;
    writeln!(page, "</div>")
}

impl<'a> Node<'a> {
    fn add(&mut self, entry: &'a Entry<'a>, mut path: impl Iterator<Item = &'a str>, open: bool) {
        self.num_tensors += 1;
        self.num_diverging += usize::from(entry.diverges);
        self.open |= open;
        if self.worst.is_none_or(|worst| entry.cmp_error(worst).is_gt()) {
            self.worst = Some(entry);
        }
        let Some(name) = path.next() else {
            self.children.push(Child::Tensor(entry));
            return;
        };
        let at = *self.by_name.entry(name).or_insert(self.children.len());
        if at == self.children.len() {
            self.children.push(Child::Module(Node { name, ..Node::default() }));
        }
        if let Child::Module(node) = &mut self.children[at] {
            node.add(entry, path, open);
        }
    }
}

/// What is written where.
struct Drawing<'a, 'b> {
    page: &'b mut String,
    id: char,
    finger: Option<&'a Entry<'a>>,
    num_tensors: usize,
}

impl Drawing<'_, '_> {
    fn children(&mut self, node: &Node<'_>) -> fmt::Result {
        writeln!(self.page, "<ul>")?;
        for child in &node.children {
            match child {
                Child::Module(node) => self.module(node)?,
                Child::Tensor(entry) => self.tensor("output", entry)?,
            }
        }
        writeln!(self.page, "</ul>")
    }

    /// A chain of modules that hold nothing else is one. What holds most of all there is is open in any case.
    fn module(&mut self, node: &Node<'_>) -> fmt::Result {
        let (mut name, mut node) = (node.name.to_string(), node);
        loop {
            match node.children.as_slice() {
                [Child::Tensor(entry)] => return self.tensor(&name, entry),
                [Child::Module(inner)] => {
                    name = format!("{name}.{}", inner.name);
                    node = inner;
                }
                _ => break,
            }
        }
        let class = if node.num_diverging == 0 { "ok" } else { "bad" };
        let open = if node.open || 2 * node.num_tensors > self.num_tensors { " open" } else { "" };
        let (level, figure) = node.worst.map_or((0, String::new()), |worst| (worst.level(), worst.figure()));
        write!(
            self.page,
            "<li class=\"{class}\"><details{open}><summary class=\"row\"><b>{}</b><i class=\"e{level}\">{figure}</i><span class=\"n\">",
            Text(name)
        )?;
        match node.num_diverging {
            0 => write!(self.page, "{}", counted(node.num_tensors, "tensor"))?,
            num => write!(self.page, "{num} of {} diverge", counted(node.num_tensors, "tensor"))?,
        }
        writeln!(self.page, "</span></summary>")?;
        self.children(node)?;
        writeln!(self.page, "</details></li>")
    }

    fn tensor(&mut self, name: &str, entry: &Entry<'_>) -> fmt::Result {
        let class = if entry.diverges { "bad" } else { "ok" };
        match self.finger.is_some_and(|finger| std::ptr::eq(finger.compared, entry.compared)) {
            true => write!(self.page, "<li class=\"{class} row finger\" id=\"{}-finger\">", self.id)?,
            false => write!(self.page, "<li class=\"{class} row\">")?,
        }
        write!(self.page, "<b>{}</b><i class=\"e{}\">{}</i>", Text(name), entry.level(), entry.figure())?;
        match &entry.compared.outcome {
            Outcome::Figures { figures, shape: dims, .. } if figures.non_finite_differences == 0 => {
                write!(
                    self.page,
                    "<span>{:.6}</span><span>{}</span>",
                    figures.cosine,
                    short(figures.rel_l2)
                )?;
                write!(self.page, "<span>{}</span>", short(figures.max_abs))?;
                write!(self.page, "<span>{}</span><span>{}</span>", entry.compared.verdict(), shape(dims))?;
            }
            _ => write!(self.page, "<span class=\"n\">{}</span>", Text(error_of(entry.compared)))?,
        }
        if let Some(origin) = entry.origin {
            let file = origin.file.rsplit_once("/src/").map_or(origin.file, |(_, file)| file);
            let (short, line) = (origin.short_function(), origin.line);
            let function = Text(&short);
            write!(self.page, "<span>{function} <small>{}:{line}</small></span>", Text(file))?;
        }
        writeln!(self.page, "</li>")
    }
}
