//! webtransport
