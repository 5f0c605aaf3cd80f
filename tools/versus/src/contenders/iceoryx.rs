//! iceoryx2 0.10, publish-subscribe: services with many ends, zero-copy, discovered by name.
//!
//! Settings for one writer and one reader, and why:
//! - The `ipc` service (its `ipc_threadsafe` adds a lock), one service for each direction.
//! - One publisher, one subscriber, no history, one borrowed and one loaned sample: the least to scan.
//! - `enable_safe_overflow(false)`: its default overwrites the oldest, and the others lose nothing.
//!   The buffer holds as many messages as the rings of the others.
//! - `DiscardData` and sending again when `send` says that nobody got it: polled like everybody. The
//!   other choice, `RetryUntilDelivered`, waits inside with growing sleeps.
//! - Polling `receive`, as its own benchmark does.
//! - A configuration of its own: all its files lie in the run's directory or carry its prefix, and
//!   the search for dead nodes is off, as there are none.
//!
//! "Single" copies the message into a loaned sample and out of the received one; "in place" writes
//! and checks it where it lies, which is what the library is made for.
//!
//! In its own words, from a checkout of iceoryx2:
//! `cargo run --bin benchmark-publish-subscribe --release -- --bench-all` (threads; the payload is
//! neither written nor read, a buffer of one message with overflow; divide the round trip by two).

use std::mem::MaybeUninit;

use iceoryx2::config::Config;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;
use iceoryx2::service::port_factory::publish_subscribe::PortFactory;

use crate::contender::{Contender, Kind, Link, Measure, Mode, Place, Result, Why, until};
use crate::message::Message;

/// iceoryx2.
pub struct Iceoryx;

impl Contender for Iceoryx {
    const NAME: &'static str = "iceoryx2";
    const KIND: Kind = Kind::Processes;
    const SETTINGS: &'static str =
        "0.10, ipc publish-subscribe, one to one, no history, no overflow, polling";
    const CAN: &'static [(Measure, Mode)] = &[
        (Measure::RoundTrip, Mode::Single),
        (Measure::RoundTrip, Mode::InPlace),
        (Measure::Stream, Mode::Single),
        (Measure::Stream, Mode::InPlace),
    ];
    type Link<const W: usize> = End<W>;
}

type Factory<const W: usize> = PortFactory<ipc::Service, Message<W>, ()>;

/// What the first step leaves: the node, and the service into which this side publishes.
pub struct Half<const W: usize> {
    node: Node<ipc::Service>,
    service: Factory<W>,
    out: Publisher<ipc::Service, Message<W>, ()>,
}

/// One side. The ports go before the services, the services before the node.
pub struct End<const W: usize> {
    out: Publisher<ipc::Service, Message<W>, ()>,
    back: Subscriber<ipc::Service, Message<W>, ()>,
    _services: [Factory<W>; 2],
    _node: Node<ipc::Service>,
}

impl<const W: usize> Link<W> for End<W> {
    type Half = Half<W>;

    fn create(place: &Place) -> Result<Self::Half> {
        set_log_level(LogLevel::Error);
        let node = NodeBuilder::new()
            .config(&config(place)?)
            .signal_handling_mode(SignalHandlingMode::Disabled)
            .create::<ipc::Service>()
            .why("create an iceoryx2 node")?;
        let service = node
            .service_builder(&name(place.near)?)
            .publish_subscribe::<Message<W>>()
            .max_publishers(1)
            .max_subscribers(1)
            .max_nodes(2)
            .history_size(0)
            .subscriber_max_buffer_size(place.slots)
            .subscriber_max_borrowed_samples(1)
            .enable_safe_overflow(false)
            .create()
            .why("create an iceoryx2 service")?;
        let out = service
            .publisher_builder()
            .max_loaned_samples(1)
            .backpressure_strategy(BackpressureStrategy::DiscardData)
            .create()
            .why("create a publisher")?;
        Ok(Half { node, service, out })
    }

    fn join(half: Self::Half, place: &Place) -> Result<Self> {
        let Half { node, service, out } = half;
        let other = node
            .service_builder(&name(!place.near)?)
            .publish_subscribe::<Message<W>>()
            .open()
            .why("open an iceoryx2 service")?;
        let back = other.subscriber_builder().create().why("create a subscriber")?;
        Ok(End { out, back, _services: [service, other], _node: node })
    }

    #[inline(always)]
    fn send(&mut self, message: &Message<W>) {
        self.send_in_place(|place| {
            // SAFETY: the place is aligned, has room for one message and is not the message.
            unsafe { place.as_mut_ptr().copy_from_nonoverlapping(message, 1) }
        });
    }

    #[inline(always)]
    fn receive(&mut self, message: &mut Message<W>) {
        self.receive_in_place(|found| *message = *found);
    }

    #[inline(always)]
    fn send_in_place(&mut self, mut fill: impl FnMut(&mut MaybeUninit<Message<W>>)) {
        until(|| {
            let mut sample = self.out.loan_uninit().ok()?;
            fill(sample.payload_mut());
            // SAFETY: `fill` has written the whole message.
            let sample = unsafe { sample.assume_init() };
            let receivers = sample.send().expect("iceoryx2: send");
            (receivers == 1).then_some(())
        });
    }

    #[inline(always)]
    fn receive_in_place<R>(&mut self, mut take: impl FnMut(&Message<W>) -> R) -> R {
        until(|| {
            let sample = self.back.receive().expect("iceoryx2: receive")?;
            Some(take(&sample))
        })
    }
}

fn name(of_near: bool) -> Result<ServiceName> {
    let name = if of_near { "there" } else { "back" };
    ServiceName::new(name).why("name a service")
}

fn config(place: &Place) -> Result<Config> {
    let directory = place.directory.to_string_lossy();
    let mut config = Config::default();
    let root = Path::new(directory.as_bytes()).why("name the directory of iceoryx2")?;
    config.global.set_root_path(&root);
    let prefix = place.prefix();
    config.global.prefix = FileName::new(prefix.as_bytes()).why("name the files of iceoryx2")?;
    config.global.node.cleanup_dead_nodes_on_creation = false;
    config.global.node.cleanup_dead_nodes_on_destruction = false;
    config.global.service.cleanup_dead_nodes_on_open = false;
    Ok(config)
}
