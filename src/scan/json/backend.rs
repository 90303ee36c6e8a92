//! Which machine instructions the masks are made with, found out at run time.

/// A way of scanning that this machine can do. All give the same answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backend(pub(super) Kind);

/// INVARIANT: a value other than `Swar` exists only on a machine that has the instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Sse2,
    #[cfg(all(target_arch = "aarch64", target_endian = "little", target_feature = "neon"))]
    Neon,
    Swar,
}

impl Backend {
    /// The fastest one of this machine.
    #[must_use]
    #[inline]
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if has_avx2() {
            return Self(Kind::Avx2);
        }
        #[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
        return Self(Kind::Sse2);
        #[cfg(all(target_arch = "aarch64", target_endian = "little", target_feature = "neon"))]
        return Self(Kind::Neon);
        #[allow(unreachable_code)]
        Self(Kind::Swar)
    }

    /// All that this machine can do, the fastest first. For tests and measurements.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut all = vec![Self::detect()];
        #[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
        all.push(Self(Kind::Sse2));
        all.push(Self(Kind::Swar));
        all.dedup();
        all
    }

    /// `avx2`, `sse2`, `neon` or `swar`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Sse2 => "sse2",
            #[cfg(all(target_arch = "aarch64", target_endian = "little", target_feature = "neon"))]
            Kind::Neon => "neon",
            Kind::Swar => "swar",
        }
    }
}

impl Default for Backend {
    fn default() -> Self {
        Self::detect()
    }
}

/// Asked for with every message, so the answer to six questions is kept in one place.
#[cfg(target_arch = "x86_64")]
#[inline]
fn has_avx2() -> bool {
    use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

    /// 0 while nobody has asked, then 1 for no and 2 for yes.
    static KNOWN: AtomicU8 = AtomicU8::new(0);
    match KNOWN.load(Relaxed) {
        0 => {
            let has = find_avx2();
            KNOWN.store(1 + u8::from(has), Relaxed);
            has
        }
        known => known == 2,
    }
}

#[cfg(target_arch = "x86_64")]
#[cold]
fn find_avx2() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("pclmulqdq")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("popcnt")
}
