//! One behaviour suite, mounted once for each transport on loopback sockets and once for each on the
//! simulated network, from the same source.

mod arena;
mod audits;
mod classes;
mod ends;
mod suite;

mod cases {
    pub(crate) use crate::audits::*;
    pub(crate) use crate::classes::*;
    pub(crate) use crate::ends::*;
    pub(crate) use crate::suite::*;
}

macro_rules! mount {
    ($($case:ident)+) => {
        mod loopback {
            mount!(@network os $($case)+);
        }
        mod simulated {
            mount!(@network sim $($case)+);
        }
    };
    (@network $network:ident $($case:ident)+) => {
        mod quic { $(#[test] fn $case() { crate::arena::$network(vitte_net::Transport::Quic, &crate::cases::$case()); })+ }
        mod tls { $(#[test] fn $case() { crate::arena::$network(vitte_net::Transport::Tls, &crate::cases::$case()); })+ }
        mod ws { $(#[test] fn $case() { crate::arena::$network(vitte_net::Transport::Ws, &crate::cases::$case()); })+ }
    };
}

mount! {
    a_call_is_answered_or_says_why_not
    a_handler_that_panics_costs_one_call
    a_dropped_call_stops_its_handler
    a_deadline_ends_a_call_on_both_sides
    too_many_calls_are_refused_as_busy
    a_channel_keeps_order_and_settles_receipts
    a_channel_says_at_open_why_it_is_refused
    messages_of_any_size_up_to_the_limit_arrive
    a_stopped_channel_refuses_what_was_not_taken
    a_full_queue_pushes_back
    a_byte_stream_carries_megabytes_both_ways
    raw_channels_carry_bytes
    draining_lets_work_finish
    a_wrong_secret_delivers_nothing
    a_caller_that_drains_gets_its_answer
    a_node_that_drains_answers_its_callers_and_lets_nobody_in
    streams_and_events_of_a_drained_mesh_end
    a_message_that_is_taken_alone_is_settled_soon
    a_call_that_never_had_its_turn_was_not_sent
    a_call_whose_deadline_is_too_short_is_nobodys_fault
    a_channel_whose_acceptor_only_sends_is_accepted
    all_who_wait_for_a_stop_hear_of_it
    a_replayed_hello_delivers_nothing
    a_reader_that_stops_holds_up_no_other_stream
    a_latest_channel_delivers_the_newest_and_says_what_it_superseded
    a_channel_of_another_class_is_refused_at_open
    datagrams_arrive_in_order_and_are_counted
    datagrams_too_long_for_a_packet_arrive_and_too_long_ones_are_refused
    draining_does_not_wait_for_the_count_of_datagrams
    everything_ends_when_the_peer_leaves
    everything_ends_when_this_mesh_is_dropped
    the_next_process_with_a_key_begins_with_nothing
    a_second_process_with_a_key_takes_nothing_from_the_first
    who_gives_up_waiting_changes_no_sum
}

/// What only a simulation can do to a peer.
mod faults {
    mount!(@network sim everything_ends_when_the_session_expires everything_ends_when_the_peer_crashes);
}

/// What only the system has: a second runtime.
mod runtimes {
    #[test]
    fn quic() {
        crate::audits::everything_ends_with_the_runtime(vitte_net::Transport::Quic);
    }

    #[test]
    fn tls() {
        crate::audits::everything_ends_with_the_runtime(vitte_net::Transport::Tls);
    }

    #[test]
    fn ws() {
        crate::audits::everything_ends_with_the_runtime(vitte_net::Transport::Ws);
    }
}
