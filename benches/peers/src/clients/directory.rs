//! Who is in which room, where the service has rooms for nobody to look into. Its clients would tell each other.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// Ids of all members, by room.
#[derive(Debug, Clone, Default)]
pub(crate) struct Directory(Arc<Mutex<HashMap<String, Vec<String>>>>);

/// A member's place. It is given up when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    directory: Directory,
    room: String,
    pub(crate) id: String,
}

impl Directory {
    pub(crate) fn enter(&self, room: &str, id: String) -> Place {
        self.0.lock().entry(room.to_owned()).or_default().push(id.clone());
        Place { directory: self.clone(), room: room.to_owned(), id }
    }
}

impl Place {
    /// `to`, or all others in the room.
    pub(crate) fn recipients(&self, to: Option<&str>) -> Vec<String> {
        match to {
            Some(to) => vec![to.to_owned()],
            None => {
                let rooms = self.directory.0.lock();
                rooms.get(&self.room).into_iter().flatten().filter(|id| **id != self.id).cloned().collect()
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut rooms = self.directory.0.lock();
        if let Some(members) = rooms.get_mut(&self.room) {
            members.retain(|id| *id != self.id);
            if members.is_empty() {
                rooms.remove(&self.room);
            }
        }
    }
}
