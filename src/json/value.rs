//! [`Document`] and [`Value`]: what a parsed message says.
//!
//! A document is one flat list of nodes; a container's node knows how many follow that belong to it, so nothing here
//! recurses and nothing is allocated.

use std::{fmt, mem};

use simd_json::{Node, StaticNode, Tape};

/// A parsed message. Gives its memory back to its parser when it drops.
pub struct Document<'a> {
    tape: Tape<'a>,
    home: &'a mut Tape<'static>,
}

impl<'a> Document<'a> {
    pub(super) fn new(tape: Tape<'a>, home: &'a mut Tape<'static>) -> Self {
        Self { tape, home }
    }

    /// The outermost value.
    #[must_use]
    pub fn value(&self) -> Value<'_> {
        Value { nodes: &self.tape.0 }
    }

    pub(super) fn take(&mut self) -> Tape<'a> {
        mem::replace(&mut self.tape, Tape(Vec::new()))
    }

    pub(super) fn put_back(&mut self, tape: Tape<'a>) {
        self.tape = tape;
    }
}

impl Drop for Document<'_> {
    fn drop(&mut self) {
        *self.home = self.take().reset();
    }
}

impl fmt::Debug for Document<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Document({} nodes)", self.tape.0.len())
    }
}

/// One value of a [`Document`].
#[derive(Clone, Copy)]
pub struct Value<'a> {
    /// Its own node, and those that belong to it. What lies behind them is not looked at.
    nodes: &'a [Node<'a>],
}

impl<'a> Value<'a> {
    fn node(self) -> Option<&'a Node<'a>> {
        self.nodes.first()
    }

    /// Whether it is `null`.
    #[must_use]
    pub fn is_null(self) -> bool {
        matches!(self.node(), Some(Node::Static(StaticNode::Null)))
    }

    /// Whether it is an object.
    #[must_use]
    pub fn is_object(self) -> bool {
        matches!(self.node(), Some(Node::Object { .. }))
    }

    /// Whether it is an array.
    #[must_use]
    pub fn is_array(self) -> bool {
        matches!(self.node(), Some(Node::Array { .. }))
    }

    /// The value of `true` or `false`.
    #[must_use]
    pub fn as_bool(self) -> Option<bool> {
        match self.node()? {
            Node::Static(StaticNode::Bool(value)) => Some(*value),
            _ => None,
        }
    }

    /// An integer that fits.
    #[must_use]
    pub fn as_i64(self) -> Option<i64> {
        match self.node()? {
            Node::Static(StaticNode::I64(value)) => Some(*value),
            Node::Static(StaticNode::U64(value)) => i64::try_from(*value).ok(),
            _ => None,
        }
    }

    /// An integer that fits.
    #[must_use]
    pub fn as_u64(self) -> Option<u64> {
        match self.node()? {
            Node::Static(StaticNode::I64(value)) => u64::try_from(*value).ok(),
            Node::Static(StaticNode::U64(value)) => Some(*value),
            _ => None,
        }
    }

    /// Any number, rounded to a float when it is none.
    #[must_use]
    pub fn as_f64(self) -> Option<f64> {
        match self.node()? {
            Node::Static(StaticNode::F64(value)) => Some(*value),
            Node::Static(StaticNode::I64(value)) => Some(*value as f64),
            Node::Static(StaticNode::U64(value)) => Some(*value as f64),
            _ => None,
        }
    }

    /// What a string says.
    #[must_use]
    pub fn as_str(self) -> Option<&'a str> {
        match self.node()? {
            Node::String(text) => Some(text),
            _ => None,
        }
    }

    /// Elements of an array or members of an object; 0 of anything else.
    #[must_use]
    pub fn len(self) -> usize {
        match self.node() {
            Some(Node::Object { len, .. } | Node::Array { len, .. }) => *len,
            _ => 0,
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The member `name` of an object: the last of that name, as JavaScript and serde_json have it. Looks at all of them.
    #[must_use]
    pub fn get(self, name: &str) -> Option<Self> {
        self.members().filter(|(key, _)| *key == name).last().map(|(_, value)| value)
    }

    /// The elements of an array; none of anything else.
    #[must_use]
    pub fn elements(self) -> Values<'a> {
        Values { rest: if self.is_array() { self.inside() } else { &[] } }
    }

    /// The members of an object, in their order; none of anything else.
    #[must_use]
    pub fn members(self) -> Members<'a> {
        Members { values: Values { rest: if self.is_object() { self.inside() } else { &[] } } }
    }

    fn inside(self) -> &'a [Node<'a>] {
        match self.node() {
            Some(Node::Object { count, .. } | Node::Array { count, .. }) => {
                self.nodes.get(1..=*count).unwrap_or_default()
            }
            _ => &[],
        }
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.node() {
            Some(Node::Object { len, .. }) => write!(f, "object of {len}"),
            Some(Node::Array { len, .. }) => write!(f, "array of {len}"),
            Some(Node::String(text)) => text.fmt(f),
            Some(Node::Static(value)) => write!(f, "{value}"),
            None => f.write_str("nothing"),
        }
    }
}

/// Values one after the other.
#[derive(Debug, Clone)]
pub struct Values<'a> {
    rest: &'a [Node<'a>],
}

impl<'a> Iterator for Values<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        let nodes = match self.rest.first()? {
            Node::Object { count, .. } | Node::Array { count, .. } => count + 1,
            _ => 1,
        };
        let (value, rest) = self.rest.split_at_checked(nodes)?;
        self.rest = rest;
        Some(Value { nodes: value })
    }
}

/// Members of an object one after the other: names and values.
#[derive(Debug, Clone)]
pub struct Members<'a> {
    values: Values<'a>,
}

impl<'a> Iterator for Members<'a> {
    type Item = (&'a str, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        Some((self.values.next()?.as_str()?, self.values.next()?))
    }
}
