//! Activation: the node as the runtime of `throng-activation` sees it.

mod identifier_keys;
mod node_state;

pub(crate) use identifier_keys::IdentifierKeySource;
pub(crate) use node_state::ActivationNode;
