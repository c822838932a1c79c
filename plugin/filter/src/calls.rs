//! Outgoing calls, and answers to calls that nobody here made.
//!
//! When any filter of a Kong worker traps, the worker gets a new instance of this one, and the answers to
//! the calls of the old instance arrive there. The SDK's dispatcher panics at a call that it does not
//! know: that trap makes a new instance again, with the calls of other requests unanswered, and so on for
//! as long as there is traffic. So the host calls a guard, which hands the SDK nothing but the answers it
//! waits for. `plugin/postlink` puts the guard where the SDK's function was.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use crate::abi::{self, Status};
use crate::lost;

thread_local! {
    /// The calls that the SDK's dispatcher waits for.
    static WAITING: RefCell<BTreeSet<u32>> = const { RefCell::new(BTreeSet::new()) };
    /// Calls among them whose exchange is over: nobody wants their answers.
    static ABANDONED: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

/// Makes an outgoing call; its answer arrives at the context that is active.
///
/// # Errors
/// The host's status, when it did not take the call.
pub(crate) fn make(
    upstream: &str,
    headers: Vec<(&str, &str)>,
    body: Option<&[u8]>,
    timeout: Duration,
) -> Result<u32, Status> {
    let token = abi::call(upstream, headers, body, timeout)?;
    WAITING.with_borrow_mut(|waiting| waiting.insert(token));
    Ok(token)
}

/// Says that the exchange that made this call is over. Its host has given the call up, and the SDK is to
/// forget it, too.
pub(crate) fn abandon(token: u32) {
    ABANDONED.with_borrow_mut(|abandoned| abandoned.push(token));
}

unsafe extern "C" {
    /// The SDK's dispatcher, which panics at a token that it does not know.
    safe fn proxy_on_http_call_response(
        context: u32,
        token: u32,
        headers: usize,
        size: usize,
        trailers: usize,
    );
}

/// What the host calls as `proxy_on_http_call_response`.
// SAFETY: the name is this function's alone.
#[unsafe(no_mangle)]
extern "C" fn toolgate_guards_call_answer(
    context: u32,
    token: u32,
    headers: usize,
    size: usize,
    trailers: usize,
) {
    for token in ABANDONED.take() {
        // The context of such a call is gone: the SDK takes the token off its list and does nothing.
        if WAITING.with_borrow_mut(|waiting| waiting.remove(&token)) {
            proxy_on_http_call_response(context, token, 0, 0, 0);
        }
    }
    let is_waited_for = WAITING.with_borrow_mut(|waiting| waiting.remove(&token));
    if is_waited_for {
        proxy_on_http_call_response(context, token, headers, size, trailers);
    } else {
        lost::refuse_newborn();
    }
}
