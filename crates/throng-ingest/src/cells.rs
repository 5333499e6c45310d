//! The cells of one row: parts of the block that it is in, or of a buffer that is used again for the next row, so
//! that a row needs no allocation.

/// Where the text of a cell is.
#[derive(Debug, Clone, Copy)]
enum Span {
    Missing,
    Block(usize, usize),
    Own(usize, usize),
}

/// The cells of a row.
#[derive(Debug, Default)]
pub(crate) struct Cells {
    spans: Vec<Span>,
    own: Vec<u8>,
}

impl Cells {
    /// Removes all cells.
    pub(crate) fn clear(&mut self) {
        self.spans.clear();
        self.own.clear();
    }

    /// Replaces all cells by `count` missing ones.
    pub(crate) fn reset(&mut self, count: usize) {
        self.clear();
        self.spans.resize(count, Span::Missing);
    }

    pub(crate) fn len(&self) -> usize {
        self.spans.len()
    }

    /// Adds a cell that is a part of the block.
    pub(crate) fn push_block(&mut self, start: usize, end: usize) {
        self.spans.push(Span::Block(start, end));
    }

    /// Adds a cell with the text that was added to the buffer since `start`.
    pub(crate) fn push_own(&mut self, start: usize) {
        self.spans.push(Span::Own(start, self.own.len()));
    }

    pub(crate) fn push_missing(&mut self) {
        self.spans.push(Span::Missing);
    }

    /// Sets a cell to a part of the block.
    pub(crate) fn set_block(&mut self, at: usize, start: usize, end: usize) {
        self.spans[at] = Span::Block(start, end);
    }

    /// Sets a cell to the text that was added to the buffer since `start`.
    pub(crate) fn set_own(&mut self, at: usize, start: usize) {
        self.spans[at] = Span::Own(start, self.own.len());
    }

    /// The buffer, to which text is added.
    pub(crate) fn own(&mut self) -> &mut Vec<u8> {
        &mut self.own
    }

    /// The text of the buffer since `start`.
    pub(crate) fn own_since(&self, start: usize) -> &[u8] {
        &self.own[start..]
    }

    /// The text of a cell; `None` if it is missing.
    pub(crate) fn get<'a>(&'a self, at: usize, block: &'a [u8]) -> Option<&'a [u8]> {
        match *self.spans.get(at)? {
            Span::Missing => None,
            Span::Block(start, end) => block.get(start..end),
            Span::Own(start, end) => self.own.get(start..end),
        }
    }
}
