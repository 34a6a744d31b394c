//! A store within one process, whose faults a test chooses.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Doing, Failure, Log, Store};
use crate::protocol::PeerId;

/// A store within one process, which outlives its nodes.
#[derive(Debug, Default)]
pub struct Memory {
    logs: Mutex<(u64, HashMap<PeerId, Log>)>,
    is_off: AtomicBool,
    is_cut: AtomicBool,
    /// A record gets stored in one of two cases, without an answer.
    swallows: AtomicBool,
}

impl Memory {
    /// There is none any more, or there is.
    pub fn turn_off(&self, is_off: bool) {
        self.is_off.store(is_off, Ordering::Relaxed);
    }

    /// Nothing gets there, or back.
    pub fn cut(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Ordering::Relaxed);
    }

    /// Its answers get lost, and every other record too.
    pub fn swallow(&self, swallows: bool) {
        self.swallows.store(swallows, Ordering::Relaxed);
    }

    /// How many seats are kept.
    pub fn seats(&self) -> usize {
        self.logs.lock().1.len()
    }

    fn put(&self, peer: PeerId, last: u64, record: Bytes, all: bool) -> Result<u64, Failure> {
        let (number, logs) = &mut *self.logs.lock();
        let present = logs.get(&peer).map_or(0, |log| log.last);
        if present != last {
            return Err(Failure::Overtaken);
        }
        *number += 1;
        let log = logs.entry(peer).or_default();
        if all {
            log.records.clear();
        }
        log.records.push(record);
        log.last = *number;
        Ok(*number)
    }

    async fn answer<T>(&self, result: Result<T, Failure>) -> Result<T, Failure> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let is_lost = self.is_cut.load(Ordering::Relaxed) || self.swallows.load(Ordering::Relaxed);
        if is_lost { Err(Failure::Unreachable) } else { result }
    }
}

impl Store for Memory {
    fn is_there(&self) -> bool {
        !self.is_off.load(Ordering::Relaxed)
    }

    fn largest(&self) -> usize {
        1024 * 1024
    }

    fn append(&self, peer: PeerId, last: u64, record: Bytes, all: bool) -> Doing<'_, Result<u64, Failure>> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let is_lost = self.is_cut.load(Ordering::Relaxed)
                || self.swallows.load(Ordering::Relaxed) && record.len().is_multiple_of(2);
            let result = if is_lost { Err(Failure::Unreachable) } else { self.put(peer, last, record, all) };
            self.answer(result).await
        })
    }

    fn read(&self, peer: PeerId) -> Doing<'_, Result<Log, Failure>> {
        Box::pin(async move {
            let log = self.logs.lock().1.get(&peer).cloned().unwrap_or_default();
            self.answer(Ok(log)).await
        })
    }

    fn forget(&self, peer: PeerId, until: u64) -> Doing<'_, ()> {
        // A record's own number is not kept: a log of which anything is somebody else's stays whole.
        self.logs.lock().1.retain(|of, log| *of != peer || log.last > until);
        Box::pin(std::future::ready(()))
    }
}
