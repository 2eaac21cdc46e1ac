//! Giving memory back.
//!
//! While thousands of peers are planned and written, much is needed for a moment: manifests, questions, answers, messages.
//! The C library keeps what is freed then, for a daemon that will hardly ever need it again. So after such a burst it is
//! asked to hand it to the kernel. The same goes for the program itself: what only the start ran and read of it need not stay
//! mapped.

use std::ffi::{c_int, c_void};
use std::time::{Duration, Instant};

use super::Daemon;

/// Peers that were planned in a burst; what fewer of them leave behind is not worth the look.
const BURST: u64 = 256;
/// What comes of a start or a burst, such as files and rules, is done for so long after it.
const AFTERMATH: Duration = Duration::from_millis(100);
/// Pieces from this size on, in bytes, go back to the kernel as soon as they are freed.
#[cfg(target_env = "gnu")]
const LARGE: c_int = 128 * 1024;

impl Daemon {
    /// Gives back what the start or a burst left behind, once it is over.
    pub(super) fn tend_memory(&mut self) {
        let (now, planned) = (Instant::now(), self.peering.plans.total());
        let is_busy = self.job.is_some() || self.peering.has_dirty() || !self.dataplane.table().is_idle(now);
        let is_much = self.trimmed_at.is_none_or(|at| planned >= at + BURST);
        self.due.memory = match self.due.memory {
            _ if is_busy || !is_much || !self.peering.settled => None,
            None => Some(now + AFTERMATH),
            Some(at) if at > now => Some(at),
            Some(_) => {
                self.trimmed_at = Some(planned);
                trim();
                unmap_program();
                None
            }
        };
    }
}

/// Sets up the C library's allocator: all threads share one heap, and large pieces are not part of it. Otherwise each thread
/// has a heap of its own, and what the reader of manifests leaves free between the few bytes that stay of each is of no use
/// to those who plan; and the first large piece that is freed would make the heap the place for all that follow. Takes effect
/// for threads that start afterwards.
#[cfg(target_env = "gnu")]
pub(super) fn share_one_heap() {
    // SAFETY: these take no pointers.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
        libc::mallopt(libc::M_TRIM_THRESHOLD, LARGE);
    }
}

/// Other C libraries have no such thing.
#[cfg(not(target_env = "gnu"))]
pub(super) fn share_one_heap() {}

#[cfg(target_env = "gnu")]
fn trim() {
    // SAFETY: it takes no pointer, and locks the allocator by itself.
    unsafe { libc::malloc_trim(0) };
}

/// Other C libraries give back by themselves, or not at all.
#[cfg(not(target_env = "gnu"))]
fn trim() {}

/// Unmaps the pages of the program's file. Each comes back from the page cache when it is needed again; those that only the
/// start needed, some megabytes, do not, and the kernel is free to drop them.
fn unmap_program() {
    // SAFETY: the function is of the kind that is asked for, and takes no data.
    unsafe { libc::dl_iterate_phdr(Some(unmap_file), std::ptr::null_mut()) };
}

/// Does it for one file of the program: the first is the program itself, and there it ends.
unsafe extern "C" fn unmap_file(info: *mut libc::dl_phdr_info, _: usize, _: *mut c_void) -> c_int {
    // SAFETY: the loader passes a description that is valid during the call, and as many headers as it says.
    let (base, headers) = unsafe {
        let info = &*info;
        (info.dlpi_addr, std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()))
    };
    // SAFETY: it takes no pointer.
    let Ok(page) = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }) else { return 1 };
    // What is never written is as in the file, always. Relocated parts are writable here, whatever they are afterwards.
    for header in headers.iter().filter(|h| h.p_type == libc::PT_LOAD && h.p_flags & libc::PF_W == 0) {
        let start = (base + header.p_vaddr).next_multiple_of(page);
        let end = (base + header.p_vaddr + header.p_memsz) / page * page;
        if let (Ok(place), Ok(length @ 1..)) = (usize::try_from(start), usize::try_from(end.saturating_sub(start))) {
            // SAFETY: whole pages of a mapping of a file that nobody writes to: they read the same afterwards.
            unsafe { libc::madvise(place as *mut c_void, length, libc::MADV_DONTNEED) };
        }
    }
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resident_kib_of_files() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    #[test]
    fn a_program_runs_on_when_it_was_unmapped() {
        let before = resident_kib_of_files();
        unmap_program();
        let after = resident_kib_of_files();
        assert!(after < before, "{after} KiB of {before} KiB are still mapped");
    }
}
