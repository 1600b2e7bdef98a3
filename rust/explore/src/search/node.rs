//! Nodes of the path that a search is on, and what comes of a choice.

use crate::runtime::schedule::Choice;
use crate::search::states::At;

/// A state on the way to where the search is.
#[derive(Clone, Copy)]
pub(crate) struct Node {
    pub at: At,
    /// Enabled, and to be tried here: not asleep.
    pub open: u16,
    /// Whose move leads only to what has been visited.
    pub sleep: u16,
    /// Of those who sleep: whose going first was not searched here (`Prefix::asleep`), since they have not woken.
    pub elsewhere: u16,
    pub done: u16,
    /// Of those done, whose move leads to what is not settled; of them, of whom a part is somebody else's to try.
    pub unsettled: u16,
    pub given: u16,
    pub choice: Choice,
    /// Of the chosen actor; 0 = not asked yet.
    pub outcomes: u16,
    /// Operations that ran after the chosen one, before the next scheduling point.
    pub ran: u32,
    /// The same of the chosen actor when it was last picked.
    pub lead: u32,
    /// Ways from here to an end, of the choices tried so far.
    pub ways: f64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Running,
    /// `unsettled`: the state that was come to, if not all terminal states behind it have been visited.
    Over {
        unsettled: Option<At>,
    },
}

pub(crate) const OVER: End = End::Over { unsettled: None };

/// What comes after a choice at a node.
pub(crate) enum Next {
    Choice,
    /// None: the node was left. What it is, if it is not settled.
    Left(Option<At>),
}
