//! Crashes, damage and full disks.
