//! What several macros read from attributes.

use syn::{Attribute, Expr, ExprLit, Lit, Meta};

/// The doc comment as one text; paragraphs stay apart.
pub(crate) fn doc_comment(attributes: &[Attribute]) -> String {
    let mut paragraphs = vec![String::new()];
    for attribute in attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("doc"))
    {
        let Meta::NameValue(doc) = &attribute.meta else {
            continue;
        };
        let Expr::Lit(ExprLit {
            lit: Lit::Str(text),
            ..
        }) = &doc.value
        else {
            continue;
        };
        for line in text.value().lines().map(str::trim) {
            let last = paragraphs.len() - 1;
            match (line.is_empty(), paragraphs[last].is_empty()) {
                (true, true) => {}
                (true, false) => paragraphs.push(String::new()),
                (false, true) => paragraphs[last].push_str(line),
                (false, false) => {
                    paragraphs[last].push(' ');
                    paragraphs[last].push_str(line);
                }
            }
        }
        if text.value().trim().is_empty() && !paragraphs[paragraphs.len() - 1].is_empty() {
            paragraphs.push(String::new());
        }
    }
    paragraphs.retain(|paragraph| !paragraph.is_empty());
    paragraphs.join("\n")
}
