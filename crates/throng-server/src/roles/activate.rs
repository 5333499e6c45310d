//! Activation: the node as the runtime of `throng-activation` sees it.

mod node_state;

pub(crate) use node_state::ActivationNode;
