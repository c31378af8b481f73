//! The atoms that cross the boundary.

rustler::atoms! {
    ok,
    error,
    nil,
    // Tags of messages.
    pyrex_arrival,
    pyrex_engine,
    pyrex_events,
    pyrex_ready,
    pyrex_reply,
    pyrex_server,
    open,
    progress,
    down,
    // Tags of events.
    started,
    token,
    finished,
    failed,
    stop,
    length,
    // Kinds of errors, one per `ErrorKind`.
    invalid_request,
    invalid_model,
    unsupported,
    overloaded,
    cancelled,
    deadline_exceeded,
    out_of_memory,
    device,
    io,
    closed,
    internal,
}
